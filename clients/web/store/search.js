/**
 * Finding Korean text as it is typed.
 *
 * Knows nothing about conversations. A consonant finds every syllable that begins with it (ㅎㄱ finds 한글),
 * a syllable that is still open finds its closed ones (하 finds 한), so that results do not jump while
 * a syllable is composed. Invariant: composed and decomposed Hangul are the same, as are letters' cases.
 */
import { truncate, truncateStart } from "../graphemes.js";

const FIRST_SYLLABLE = 0xac00;
const LAST_SYLLABLE = 0xd7a3;
/** Syllables per initial consonant, and per initial and vowel (Unicode 3.12, conjoining jamo). */
const NUM_PER_INITIAL = 588;
const NUM_FINALS = 28;
const INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ";
/** Consonants of which a keyboard makes one where a syllable cannot follow: ㄳ is ㄱ and ㅅ. */
const CLUSTERS = { ㄳ: "ㄱㅅ", ㄵ: "ㄴㅈ", ㄶ: "ㄴㅎ", ㄺ: "ㄹㄱ", ㄻ: "ㄹㅁ", ㄼ: "ㄹㅂ", ㄽ: "ㄹㅅ", ㄾ: "ㄹㅌ", ㄿ: "ㄹㅍ", ㅀ: "ㄹㅎ", ㅄ: "ㅂㅅ" };

const BEFORE_GRAPHEMES = 18;
const AFTER_GRAPHEMES = 60;

/** @typedef {{ before: string, match: string, after: string }} Snippet */

/**
 * @param {string} query
 * @returns {((text: string) => Snippet | null) | null} finds the first match and what stands around it;
 *   null for a query of blanks
 */
export function createMatcher(query) {
  const characters = [...query.normalize("NFC").trim().replace(/[ㄳ-ㅄ]/g, (cluster) => CLUSTERS[cluster] ?? cluster)];
  if (characters.length === 0) return null;
  const last = characters.length - 1;
  const source = characters.map((character, index) => pattern(character, index === last)).join("");
  const expression = new RegExp(source, "iu");
  return (text) => {
    const composed = text.normalize("NFC");
    const found = expression.exec(composed);
    return found && snippet(composed, found.index, found[0].length);
  };
}

/** @param {string} query @returns {boolean} a consonant alone, which nearly every text has */
export function isVague(query) {
  return /^[ㄱ-ㅎ]$/u.test(query.normalize("NFC").trim());
}

/** @param {string} character @param {boolean} isLast @returns {string} of a regular expression */
function pattern(character, isLast) {
  if (/\s/u.test(character)) return "\\s+";
  const initial = INITIALS.indexOf(character);
  if (initial >= 0) return `[${character}${syllables(FIRST_SYLLABLE + initial * NUM_PER_INITIAL, NUM_PER_INITIAL)}]`;
  const code = character.codePointAt(0);
  const isOpen = code >= FIRST_SYLLABLE && code <= LAST_SYLLABLE && (code - FIRST_SYLLABLE) % NUM_FINALS === 0;
  if (isOpen && isLast) return `[${syllables(code, NUM_FINALS)}]`;
  return character.replace(/[\\^$.*+?()[\]{}|/]/u, (special) => `\\${special}`);
}

/** @param {number} first @param {number} count @returns {string} a range in a character class */
function syllables(first, count) {
  return `${String.fromCodePoint(first)}-${String.fromCodePoint(first + count - 1)}`;
}

/** @param {string} text @param {number} index @param {number} length @returns {Snippet} */
function snippet(text, index, length) {
  const flat = (part) => part.replace(/\s+/gu, " ");
  return {
    before: truncateStart(flat(text.slice(Math.max(0, index - 400), index)).trimStart(), BEFORE_GRAPHEMES),
    match: flat(text.slice(index, index + length)),
    after: truncate(flat(text.slice(index + length, index + length + 1600)).trimEnd(), AFTER_GRAPHEMES),
  };
}
