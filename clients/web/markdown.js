/**
 * Shows markdown in an element while it is being written: closed blocks keep their nodes, only the open one
 * changes.
 *
 * Knows nothing about chats. Invariants: nothing that this needs is loaded before the first text, and
 * without the packages in vendor/ text is shown as it is.
 */
import { nextTask } from "./tasks.js";

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
  let loading = null;
  let draw = null;

  function show(container, text, isFinal) {
    if (waiting.delete(container)) {
      container.classList.remove("markdown-plain");
      container.replaceChildren();
    }
    draw(container, text, isFinal);
  }

  /** The last ones first, where the reader is, and one at a time: the page stays alive meanwhile. */
  async function showWaiting(newDraw) {
    draw = newDraw;
    for (const [container, [text, isFinal]] of [...waiting].reverse()) {
      if (waiting.has(container)) show(container, text, isFinal);
      await nextTask();
    }
  }

  return {
    render(container, text, { isFinal }) {
      if (draw) {
        show(container, text, isFinal);
        return;
      }
      loading ??= drawing(t).then(showWaiting, onUnavailable);
      waiting.set(container, [text, isFinal]);
      container.classList.add("markdown", "markdown-plain");
      if (container.textContent !== text) container.textContent = text;
    },
  };
}

/** @returns {Promise<(container: Element, text: string, isFinal: boolean) => void>} */
async function drawing(t) {
  const parts = [import("./markdown/drawing.js"), vendored("marked"), vendored("purify")];
  const [{ createDrawing }, marked, purify] = await Promise.all(parts);
  return createDrawing({ marked, purify, load: vendored, t });
}

/** @param {string} name @returns {Promise<any>} what vendor/NAME.js exports */
function vendored(name) {
  return import(`./vendor/${name}.js`).then((module) => module.default ?? module);
}
