/**
 * A growing text as blocks: those that can no longer change, and the open one.
 *
 * Pure; knows nothing about the DOM. Invariant: a block that was closed stays as it is, except at the end,
 * when a definition below may have given an address to a name above.
 */

import { displayable } from "./open_end.js";

/**
 * @typedef {object} Block
 * @property {string} raw the markdown that it was read from, as it is shown
 * @property {any[]} tokens for the parser
 * @property {boolean} isClosed
 */

/**
 * @param {{ lex(text: string, links?: object): any[] }} parser
 * @returns {{ update(text: string, isFinal: boolean): { from: number, blocks: Block[], isRedone: boolean } }} the
 *   blocks from index `from` on are these now, the ones before are as they were; `isRedone` where a block
 *   may look another way although its text is the same
 */
export function createBlocks(parser) {
  let text = "";
  let numClosed = 0;
  let closedLength = 0;
  let links = {};

  function restart() {
    numClosed = 0;
    closedLength = 0;
    links = {};
  }

  return {
    update(newText, isFinal) {
      const isGrown = newText.startsWith(text);
      // Names may have been used above the line that defines them.
      const isRedone = isFinal && Object.keys(links).length > 0;
      if (!isGrown || isRedone) restart();
      text = newText;
      const from = numClosed;
      const rest = text.slice(closedLength);
      const tokens = parser.lex(rest, links);
      links = tokens.links;
      const shown = tokens.filter((token) => token.type !== "space" && token.type !== "def");
      const isWhole = tokens.reduce((length, token) => length + token.raw.length, 0) === rest.length;
      const open = isFinal || !shown.length ? null : shown.at(-1);
      const closed = open ? shown.slice(0, -1) : shown;
      if (isWhole && open) {
        numClosed += closed.length;
        closedLength += lengthBefore(tokens, open);
      }
      return { from, isRedone, blocks: [...closed.map(closedBlock), ...(open ? [openBlock(parser, open, links)] : [])] };
    },
  };
}

function lengthBefore(tokens, open) {
  return tokens.slice(0, tokens.indexOf(open)).reduce((length, token) => length + token.raw.length, 0);
}

/** @returns {Block} */
function closedBlock(token) {
  return { raw: token.raw, tokens: [token], isClosed: true };
}

/** @returns {Block} */
function openBlock(parser, token, links) {
  const raw = displayable(token.raw, token.type);
  return { raw, tokens: raw === token.raw ? [token] : parser.lex(raw, links), isClosed: false };
}
