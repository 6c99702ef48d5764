/**
 * Gives sanitized markup what only the page may add: headings, copy buttons and frames that scroll.
 *
 * Knows nothing about markdown. Invariant: it builds nodes and never reads HTML.
 */

import { h } from "../dom.js";

/**
 * @param {DocumentFragment} markup changed in place
 * @param {(key: string) => string} t
 */
export function finish(markup, t) {
  for (const pre of markup.querySelectorAll("pre")) frameCode(pre, t);
  for (const table of markup.querySelectorAll("table")) frameTable(table, t);
  // The page's own heading is the first; an answer's headings come below it.
  for (const heading of markup.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    heading.setAttribute("aria-level", String(Math.min(6, Number(heading.nodeName[1]) + 2)));
  }
}

function frameCode(pre, t) {
  const language = pre.firstElementChild?.className.replace(/^language-/, "") ?? "";
  // What does not fit is scrolled, also with the keyboard.
  pre.tabIndex = 0;
  const block = h("figure", { class: "code-block" });
  pre.replaceWith(block);
  const copy = h("button", { type: "button", class: "code-copy", dataset: { copy: "" } }, t("code.copy"));
  block.append(h("figcaption", { class: "code-head" }, h("span", { class: "code-language" }, language), copy), pre);
}

function frameTable(table, t) {
  for (const cell of table.querySelectorAll("[align]")) {
    cell.classList.add(`align-${cell.getAttribute("align")}`);
    cell.removeAttribute("align");
  }
  const frame = h("div", { class: "table-frame", role: "region", "aria-label": t("markdown.table") });
  frame.tabIndex = 0;
  table.replaceWith(frame);
  frame.append(table);
}
