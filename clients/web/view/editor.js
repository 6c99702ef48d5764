/**
 * A message while its reader words it anew.
 *
 * Knows nothing about branches. Invariant: Escape leaves everything as it was; keys of the input method
 * are its own.
 */

import { h } from "../dom.js";
import { isForInputMethod, watchComposition } from "../ime.js";

/**
 * @param {any} app
 * @param {import("../conversation.js").Message} message
 * @returns {HTMLElement}
 */
export function createEditor({ state, chat, t }, message) {
  const isQuestion = message.role === "user";
  const field = h("textarea", { class: "editor-input", "aria-label": t("editor.label"), value: message.content });
  const composition = watchComposition(field);

  function close() {
    state.set({ editing: null });
    document.getElementById("composer-input").focus();
  }

  async function save() {
    await composition.settled();
    const text = field.value;
    if (text.trim() === "") return;
    close();
    if (text !== message.content || isQuestion) chat.edit(message.id, text);
  }

  field.addEventListener("keydown", (event) => {
    if (isForInputMethod(event)) return;
    if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      close();
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      void save();
    }
  });
  return h(
    "form",
    {
      class: "editor",
      onsubmit: (event) => {
        event.preventDefault();
        void save();
      },
    },
    field,
    h("p", { class: "editor-hint" }, t(isQuestion ? "editor.questionHint" : "editor.answerHint")),
    h(
      "div",
      { class: "editor-actions" },
      h("button", { class: "button", type: "button", onclick: close }, t("action.cancel")),
      h("button", { class: "button is-primary", type: "submit" }, t(isQuestion ? "editor.ask" : "action.save")),
    ),
  );
}
