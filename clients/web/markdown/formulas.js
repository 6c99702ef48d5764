/**
 * Where formulas are in markdown: $…$, $$…$$, \(…\) and \[…\].
 *
 * Knows nothing about how they are set (maths.js does that). Invariant: amounts of money are no formulas.
 */

import { escapeHtml } from "./escape.js";

const MAX_LENGTH = 2000;

/**
 * One dollar sign: no space inside of it, and neither letters nor digits outside, so that "$5 and $10",
 * "US$5" and "$HOME/$USER" stay what they are. Hangul may touch it: $x$는.
 */
const DOLLAR = /^\$(?![\s$])((?:\\[^]|[^$\\\n])+?)(?<!\s)\$(?![\w$])/;
const DOUBLE_DOLLAR = /^\$\$((?:\\[^]|[^$\\])+?)\$\$/;
const PARENTHESIS = /^\\\(((?:(?!\\\))[^])+?)\\\)/;
const BRACKET = /^\\\[((?:(?!\\\])[^])+?)\\\]/;

const INLINE = [
  [DOUBLE_DOLLAR, true],
  [BRACKET, true],
  [PARENTHESIS, false],
  [DOLLAR, false],
];
const BLOCK = /^ {0,3}(?:\$\$((?:\\[^]|[^$\\])+?)\$\$|\\\[((?:(?!\\\])[^])+?)\\\])[ \t]*(?:\n+|$)/;

/** @returns {object[]} marked's extensions; both write a span that holds the formula's TeX */
export function formulaExtensions() {
  return [
    {
      name: "formulaBlock",
      level: "block",
      start: blockStart,
      tokenizer(source) {
        const match = BLOCK.exec(source);
        if (!match || match[0].length > MAX_LENGTH) return undefined;
        return { type: "formulaBlock", raw: match[0], tex: (match[1] ?? match[2]).trim() };
      },
      renderer: ({ tex }) => `<p>${span(tex, true)}</p>\n`,
    },
    {
      name: "formula",
      level: "inline",
      start: dollar,
      tokenizer: formula,
      renderer: ({ tex, isDisplay }) => span(tex, isDisplay),
    },
  ];
}

function formula(source) {
  for (const [pattern, isDisplay] of INLINE) {
    const match = pattern.exec(source);
    if (match && match[0].length <= MAX_LENGTH) {
      return { type: "formula", raw: match[0], tex: match[1].trim(), isDisplay };
    }
  }
  return undefined;
}

/** Asked before every paragraph: a plain look whether there is anything to look for comes first. */
function blockStart(source) {
  if (!source.includes("$$") && !source.includes("\\[")) return undefined;
  const index = source.search(/(?<=\n) {0,3}(?:\$\$|\\\[)/);
  return index < 0 ? undefined : index;
}

/** Asked before every word or so. Backslashes need no telling: marked stops at them anyway. */
function dollar(source) {
  let index = source.indexOf("$");
  while (index > 0 && /[A-Za-z0-9\\]/.test(source[index - 1])) index = source.indexOf("$", index + 1);
  return index < 0 ? undefined : index;
}

function span(tex, isDisplay) {
  return `<span class="${isDisplay ? "formula formula-display" : "formula"}">${escapeHtml(tex)}</span>`;
}
