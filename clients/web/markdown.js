/**
 * Shows markdown in an element while it is being written: closed blocks keep their nodes, only the open one
 * changes.
 *
 * Knows nothing about chats. Invariant: without the packages in vendor/ the text is shown as it is.
 */

import { copyText } from "./clipboard.js";
import { createBlocks } from "./markdown/blocks.js";
import { finish } from "./markdown/finish.js";
import { createHighlighter } from "./markdown/highlight.js";
import { createMaths } from "./markdown/maths.js";
import { morph } from "./markdown/morph.js";
import { createParser } from "./markdown/parser.js";
import { createSanitizer } from "./markdown/sanitizer.js";

const COPIED_MS = 1500;

/**
 * @typedef {object} Markdown
 * @property {(container: Element, text: string, options: { isFinal: boolean }) => void} render shows `text`;
 *   the same container may be given longer texts, and others
 *
 * @param {object} options
 * @param {(key: string, params?: object) => string} options.t
 * @param {() => void} [options.onUnavailable] told once when vendor/ lacks what markdown needs
 * @returns {Markdown}
 */
export function createMarkdown({ t, onUnavailable = () => undefined }) {
  const waiting = new Map();
  let draw = null;

  function render(container, text, { isFinal }) {
    if (draw) {
      draw(container, text, isFinal);
      return;
    }
    waiting.set(container, [text, isFinal]);
    container.classList.add("markdown", "markdown-plain");
    if (container.textContent !== text) container.textContent = text;
  }

  Promise.all([vendored("marked"), vendored("purify")]).then(([marked, purify]) => {
    draw = createDrawing(marked, purify, t);
    for (const [container, [text, isFinal]] of waiting) {
      container.classList.remove("markdown-plain");
      container.replaceChildren();
      draw(container, text, isFinal);
    }
    waiting.clear();
  }, onUnavailable);

  return { render };
}

/** @param {string} name @returns {Promise<any>} what vendor/NAME.js exports */
function vendored(name) {
  return import(`./vendor/${name}.js`).then((module) => module.default ?? module);
}

/** @returns {(container: Element, text: string, isFinal: boolean) => void} */
function createDrawing(marked, purify, t) {
  const parser = createParser(marked, { imageLabel: (name) => t("markdown.image", { name }) });
  const sanitizer = createSanitizer(purify, window);
  const maths = createMaths(sanitizer, () => vendored("katex"));
  const highlight = createHighlighter(vendored);
  const shown = new WeakMap();

  function begin(container) {
    container.classList.add("markdown");
    container.addEventListener("click", (event) => copyCode(event, t));
    const view = { blocks: createBlocks(parser), elements: [], raws: [], text: null, isFinal: false };
    shown.set(container, view);
    return view;
  }

  function drawBlock(container, element, block) {
    const markup = markupOf(parser, sanitizer, block);
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
      drawBlock(container, view.elements[index], block);
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
function markupOf(parser, sanitizer, block) {
  try {
    return sanitizer.markup(parser.html(block.tokens));
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
