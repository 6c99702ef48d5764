/**
 * Says why an answer ended, and offers what helps.
 *
 * Knows nothing about why that is (endings.js). Invariant: an answer that is whole takes no more room than
 * one word that opens the explanation.
 */

import { endingOf } from "../endings.js";
import { h } from "../dom.js";
import { icon } from "../icons.js";
import { KEY_PANEL } from "./key_dialog.js";

const ICONS = { cut: "info", failed: "warning" };

/**
 * @param {any} app
 * @returns {{ show(message: import("../conversation.js").Message, options: { isLast: boolean }): HTMLElement | null }}
 */
export function createEndingView(app) {
  const { state, t } = app;
  return {
    show(message, { isLast }) {
      const ending = endingOf(message, state.get().conversation);
      if (ending.kind === "whole") return null;
      const remedies = isLast ? ending.remedies.map((remedy) => remedyButton(app, message, remedy)) : [];
      return h(
        "div",
        { class: `ending is-${ending.kind}` },
        icon(ICONS[ending.kind]),
        h("p", { class: "ending-words" }, t(ending.key, ending.params)),
        remedies.length > 0 && h("div", { class: "ending-remedies" }, remedies),
      );
    },
  };
}

function remedyButton(app, message, remedy) {
  const { chat, state, t } = app;
  const act = {
    continue: () => chat.continueAnswer(message.id),
    retry: () => chat.continueAnswer(message.id),
    forget: () => chat.forgetOldest(message.id),
    regenerate: () => chat.regenerate(message.id),
    newChat: () => chat.create(),
    key: () => state.set({ needsKey: true, panel: KEY_PANEL }),
  };
  return h("button", { class: "button", type: "button", onclick: act[remedy] }, t(`remedy.${remedy}`));
}
