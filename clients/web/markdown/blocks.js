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
 * @param {import("./parser.js").Parser} parser
 * @returns {{ update(text: string, isFinal: boolean): { from: number, blocks: Block[], isRedone: boolean } }} the
 *   blocks from index `from` on are these now, the ones before are as they were; `isRedone` where a block
 *   may look another way although its text is the same
 */
export function createBlocks(parser) {
  let text = "";
  let numClosed = 0;
  let closedLength = 0;
  let links = {};
  /** The open block's lines: of a long list only the last item is read anew. */
  let lines = new Map();

  function restart() {
    numClosed = 0;
    closedLength = 0;
    links = {};
    lines = new Map();
  }

  /** The open block, and where it begins in `rest`; none where the text is over or not to be cut. */
  function openEnd(rest, isFinal) {
    const tokens = parser.outline(rest, links);
    links = tokens.links;
    const open = isFinal ? undefined : tokens.findLast(isShown);
    const isWhole = lengthOf(tokens) === rest.length;
    if (!open || !isWhole) return { open: null, begin: rest.length };
    return { open, begin: lengthOf(tokens.slice(0, tokens.indexOf(open))) };
  }

  return {
    update(newText, isFinal) {
      // Names may have been used above the line that defines them.
      const isRedone = isFinal && Object.keys(links).length > 0;
      if (!newText.startsWith(text) || isRedone) restart();
      text = newText;
      const from = numClosed;
      const rest = text.slice(closedLength);
      const { open, begin } = openEnd(rest, isFinal);
      const closed = parser.lex(rest.slice(0, begin), links);
      const blocks = closed.filter(isShown).map((token) => ({ raw: token.raw, tokens: [token], isClosed: true }));
      if (!open) return { from, blocks, isRedone };
      if (begin > 0) lines = new Map();
      numClosed += blocks.length;
      closedLength += begin;
      const raw = displayable(open.raw, open.type);
      return { from, blocks: [...blocks, { raw, tokens: parser.lex(raw, links, lines), isClosed: false }], isRedone };
    },
  };
}

function isShown(token) {
  return token.type !== "space" && token.type !== "def";
}

function lengthOf(tokens) {
  return tokens.reduce((length, token) => length + token.raw.length, 0);
}
