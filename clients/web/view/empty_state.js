/**
 * What is seen before anything was said: a greeting and a few ways to begin.
 *
 * Knows nothing about sending. Invariant: choosing a way to begin writes into the box and sends nothing.
 */

import { h } from "../dom.js";

const SUGGESTIONS = ["mail", "explain", "code", "plan"];

/**
 * @param {any} app
 * @returns {HTMLElement}
 */
export function createEmptyState({ state, t }) {
  const note = h("p", { class: "empty-note" });
  const suggestions = SUGGESTIONS.map((name) =>
    h(
      "button",
      { class: "empty-suggestion", type: "button", onclick: () => write(t(`suggestion.text.${name}`)) },
      t(`suggestion.title.${name}`),
    ),
  );

  function show() {
    const { models, modelId, connection } = state.get();
    const hasNone = connection === "ready" && models.length > 0 && modelId === null;
    note.textContent = hasNone ? t("empty.noModel") : t("empty.note");
  }
  state.subscribe(["models", "modelId", "connection"], show);
  show();
  return h(
    "section",
    { class: "empty" },
    h("h2", { class: "empty-title" }, t("empty.title")),
    note,
    h("div", { class: "empty-suggestions" }, suggestions),
  );
}

function write(text) {
  const field = document.getElementById("composer-input");
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.focus();
  field.setSelectionRange(text.length, text.length);
}
