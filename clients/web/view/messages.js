/**
 * The open conversation, as far as it is looked at.
 *
 * Knows nothing about what a message looks like. Invariant: messages that come in above or below never move
 * what is being read.
 */

import { h } from "../dom.js";
import { icon } from "../icons.js";
import { createAnnouncer } from "./announcer.js";
import { MessageWindow } from "./message_window.js";
import { Scroller } from "./scroller.js";

/**
 * @param {any} app
 * @returns {HTMLElement}
 */
export function createMessages(app) {
  const { state, t } = app;
  const list = h("div", { class: "messages-list", role: "log", "aria-live": "off", "aria-label": t("messages.label") });
  const older = h("button", { class: "messages-older", type: "button", hidden: true }, t("messages.older"));
  const pane = h("div", { class: "messages-pane", tabindex: "-1" }, older, list);
  const label = t("messages.toEnd");
  const toEnd = h(
    "button",
    { class: "messages-to-end", type: "button", hidden: true, "aria-label": label, title: label },
    icon("down"),
  );
  const scroller = new Scroller(pane, list, { onMove: (isAtEnd) => void (toEnd.hidden = isAtEnd) });
  const shown = new MessageWindow({ app, list, older, scroller });

  older.addEventListener("click", () => shown.reveal());
  toEnd.addEventListener("click", () => scroller.follow());
  state.subscribe(["conversation", "streaming", "editing", "models"], () => shown.show());
  state.subscribe(["streaming"], ({ streaming }) => list.classList.toggle("is-busy", streaming !== null));
  shown.show();
  const root = h("div", { class: "messages" }, pane, toEnd, createAnnouncer(app));
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && state.get().streaming) app.chat.stop();
  });
  return root;
}
