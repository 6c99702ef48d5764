/**
 * The block that is still being written, as it will look: without marks whose other half is to come.
 *
 * Pure text in, text out; knows nothing about the DOM. Invariant: it only hides or closes marks at the end;
 * what stands before the last unfinished mark stays as it is.
 */

/** A last line of marks alone may become a list, a heading, a rule or a fence. */
const MARKS_ALONE = /(?:^|\n)[ \t>]*(?:[-=*+#_~`|>$]+|\d{1,9}[.)]?)[ \t]*$/;
const PARTIAL_FENCE = /\n[ \t>]*(?:`+|~+)[ \t]*$/;
const FENCE = /^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?(`{3,}|~{3,})/;
/** Where text begins whose emphasis does not reach back: a blank line, a list item, a heading, a table's cell. */
const FRESH_START = /(?:^|\n)(?:[ \t]*\n|[ \t>]*(?:[-*+]|\d{1,9}[.)])[ \t]+|[ \t>]*#{1,6}[ \t]+|[ \t>]*\|(?:[^\n]*\|)?)/g;

const HALF_LINK = /!?\[([^[\]\n]*)\]\([^()\s]*$/;
const HALF_TAG = /<\/?[A-Za-z]{0,4}$/;
const HALF_FORMULA = /(?:\\[([]|\$\$)(?:(?!\\[)\]]|\$\$)[^]){0,2000}$/;
/** One dollar sign is hidden only before what looks like TeX: "$5 for" is money. */
const HALF_DOLLAR = /(?<![A-Za-z0-9\\$])\$(?![\s\d$])(?:[^$\n]{0,3}|[^$\n]*[\\^_{}=][^$\n]*)$/;

/**
 * @param {string} raw the open block as it was written so far
 * @param {string} type marked's name of the block
 * @returns {string} markdown to show in its place
 */
export function displayable(raw, type) {
  if (isInFence(raw)) return raw.replace(PARTIAL_FENCE, "");
  if (type === "code" || type === "formulaBlock" || type === "hr") return raw;
  // A table's second row is marks alone, and complete enough.
  const text = type === "table" ? raw : withoutTableHead(raw.replace(MARKS_ALONE, ""), type);
  const begin = freshStart(text);
  return text.slice(0, begin) + closed(text.slice(begin));
}

/** Whether the text ends inside of a fenced block, be it in a list or a quote. */
function isInFence(text) {
  let fence = "";
  for (const line of text.split("\n")) {
    const mark = FENCE.exec(line)?.[1] ?? "";
    if (!fence) fence = mark;
    else if (mark.startsWith(fence) && /[`~][ \t]*$/.test(line)) fence = "";
  }
  return fence !== "";
}

/** A table is known by its second row: until that is there, the first would be a paragraph of bars. */
function withoutTableHead(text, type) {
  if (type !== "paragraph") return text;
  const lines = text.split("\n");
  const first = lines.findIndex((line) => /^[ \t]*\|/.test(line));
  return first >= 0 && lines.length - first <= 2 ? lines.slice(0, first).join("\n") : text;
}

function freshStart(text) {
  let begin = 0;
  for (const match of text.matchAll(FRESH_START)) begin = match.index + match[0].length;
  return begin;
}

/** @param {string} text the last stretch of inline text @returns {string} with every open mark closed or hidden */
function closed(text) {
  const { end, open, afterCode } = scan(text);
  const tail = text.slice(afterCode, end);
  const shown = text.slice(0, afterCode) + (open.at(-1)?.startsWith("`") ? tail : withoutHalves(tail));
  return open.length ? closeMarks(shown.trimEnd(), open) : shown;
}

function withoutHalves(text) {
  return text
    .replace(HALF_LINK, "$1")
    .replace(HALF_TAG, "")
    .replace(HALF_FORMULA, "")
    .replace(HALF_DOLLAR, "")
    .replace(/\\$/, "");
}

/** Marks with nothing behind them are hidden, the others closed, the last one first. */
function closeMarks(text, open) {
  let shown = text;
  for (const mark of [...open].reverse()) {
    shown = shown.endsWith(mark) ? shown.slice(0, -mark.length).trimEnd() : shown + mark;
  }
  return shown;
}

/** Marks that are open at the end of `text`, where the text ends that they reach to, and its last code span. */
function scan(text) {
  const open = [];
  let afterCode = 0;
  const pattern = /\\[^]|(`+)|(\*{1,3})|(~~)/g;
  for (let match = pattern.exec(text); match; match = pattern.exec(text)) {
    const [mark, ticks] = match;
    if (mark.startsWith("\\")) continue;
    if (ticks) {
      afterCode = codeEnd(text, pattern.lastIndex, ticks);
      if (afterCode < 0) return { end: text.length, open: [...open, ticks], afterCode: match.index };
      pattern.lastIndex = afterCode;
      continue;
    }
    const isLast = pattern.lastIndex === text.length;
    if (isLast && isHalf(mark, open)) return { end: match.index, open, afterCode };
    for (const part of mark === "***" ? partsOf(open) : [mark]) toggle(open, part, text, match.index, pattern.lastIndex);
  }
  return { end: text.length, open, afterCode };
}

/** Half of a closing mark, as in **굵게*. */
function isHalf(mark, open) {
  return mark === "*" && open.includes("**") && !open.includes("*");
}

function partsOf(open) {
  return open.at(-1) === "*" ? ["*", "**"] : ["**", "*"];
}

function toggle(open, mark, text, begin, end) {
  const index = open.lastIndexOf(mark);
  if (index >= 0 && /\S/.test(text[begin - 1] ?? " ")) open.splice(index);
  else if (end === text.length || /\S/.test(text[end])) open.push(mark);
}

/** Where a code span ends that `ticks` has begun; -1 if it has not ended. */
function codeEnd(text, from, ticks) {
  const pattern = /`+/g;
  pattern.lastIndex = from;
  for (let match = pattern.exec(text); match; match = pattern.exec(text)) {
    if (match[0].length === ticks.length) return pattern.lastIndex;
  }
  return -1;
}
