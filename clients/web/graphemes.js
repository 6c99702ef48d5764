/**
 * Text cut where people see characters end: no half syllable, no half emoji.
 *
 * Knows nothing about where the text is shown. Invariant: what is returned is whole graphemes.
 */

const segmenter = new Intl.Segmenter("ko", { granularity: "grapheme" });
/** Enough UTF-16 units for any grapheme that people write; families of emoji take 25. */
const UNITS_PER_GRAPHEME = 32;

/**
 * @param {string} text
 * @param {number} maxGraphemes
 * @returns {string} the text, or its beginning and an ellipsis, together at most `maxGraphemes`
 */
export function truncate(text, maxGraphemes) {
  const head = [];
  for (const { segment } of segmenter.segment(text)) {
    if (head.length === maxGraphemes) return `${head.slice(0, -1).join("").trimEnd()}…`;
    head.push(segment);
  }
  return text;
}

/**
 * @param {string} text
 * @param {number} maxGraphemes
 * @returns {string} the text, or an ellipsis and its end, together at most `maxGraphemes`
 */
export function truncateStart(text, maxGraphemes) {
  const tail = graphemes(text.slice(-(maxGraphemes + 1) * UNITS_PER_GRAPHEME));
  if (tail.length <= maxGraphemes) return tail.join("");
  return `…${tail.slice(-(maxGraphemes - 1)).join("").trimStart()}`;
}

/**
 * @param {string} text
 * @returns {number} characters as people count them, 글자
 */
export function numGraphemes(text) {
  let count = 0;
  for (const _ of segmenter.segment(text)) count += 1;
  return count;
}

/** @param {string} text @returns {string[]} */
function graphemes(text) {
  return Array.from(segmenter.segment(text), (part) => part.segment);
}
