/**
 * Draws blocks of markdown into an element, and redraws those that changed.
 *
 * Knows nothing about where text comes from. Invariant: a closed block keeps its nodes.
 */

import { copyText } from "../clipboard.js";
import { createBlocks } from "./blocks.js";
import { finish } from "./finish.js";
import { createHighlighter } from "./highlight.js";
import { createMaths } from "./maths.js";
import { morph } from "./morph.js";
import { createParser } from "./parser.js";
import { createPieces } from "./pieces.js";
import { createSanitizer } from "./sanitizer.js";

const COPIED_MS = 1500;

/**
 * @param {object} options
 * @param {any} options.marked
 * @param {any} options.purify
 * @param {(name: string) => Promise<any>} options.load brings what else vendor/ has, when it is first needed
 * @param {(key: string, params?: object) => string} options.t
 * @returns {(container: Element, text: string, isFinal: boolean) => void}
 */
export function createDrawing({ marked, purify, load, t }) {
  const parser = createParser(marked, { imageLabel: (name) => t("markdown.image", { name }) });
  const sanitizer = createSanitizer(purify, window);
  const maths = createMaths(sanitizer, () => load("katex"));
  const highlight = createHighlighter(load);
  const shown = new WeakMap();

  function begin(container) {
    container.classList.add("markdown");
    container.addEventListener("click", (event) => copyCode(event, t));
    const prepare = (html) => {
      const markup = sanitizer.markup(html);
      maths.set(markup, container);
      return markup;
    };
    const pieces = createPieces(parser.html, prepare);
    const blocks = createBlocks(parser);
    const view = { container, blocks, pieces, elements: [], raws: [], text: null, isFinal: false };
    shown.set(container, view);
    return view;
  }

  function drawBlock({ container, pieces }, element, block) {
    const markup = markupOf(pieces, block);
    // Once more: a piece may be older than KaTeX' arrival.
    maths.set(markup, container);
    finish(markup, t);
    morph(element, markup);
    if (block.isClosed) highlight(element);
  }

  return (container, text, isFinal) => {
    const view = shown.get(container) ?? begin(container);
    if (text === view.text && isFinal === view.isFinal) return;
    Object.assign(view, { text, isFinal });
    const { from, blocks, isRedone } = view.blocks.update(text.replaceAll("\r\n", "\n").replaceAll("\r", "\n"), isFinal);
    blocks.forEach((block, offset) => {
      const index = from + offset;
      const known = `${block.isClosed}${block.raw}`;
      if (view.raws[index] === known && !isRedone) return;
      view.elements[index] ??= newBlock(container);
      drawBlock(view, view.elements[index], block);
      view.raws[index] = known;
    });
    for (const element of view.elements.splice(from + blocks.length)) element.remove();
    view.raws.length = view.elements.length;
  };
}

function newBlock(container) {
  const element = document.createElement("div");
  element.className = "markdown-block";
  container.append(element);
  return element;
}

/** @returns {DocumentFragment} */
function markupOf(pieces, block) {
  try {
    return pieces(block.tokens);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    // Nested deeper than the stack: nobody reads that but as text.
    const plain = document.createElement("p");
    plain.textContent = block.raw;
    const fragment = document.createDocumentFragment();
    fragment.append(plain);
    return fragment;
  }
}

async function copyCode(event, t) {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const code = button.closest(".code-block").querySelector("code");
  const isCopied = await copyText(code.textContent.replace(/\n$/, ""));
  button.textContent = t(isCopied ? "code.copied" : "code.copyFailed");
  setTimeout(() => {
    button.textContent = t("code.copy");
  }, COPIED_MS);
}
