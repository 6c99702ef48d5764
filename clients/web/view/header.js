/**
 * The line over the chat: the conversations, the model, this chat's settings.
 *
 * Knows nothing about what they do. Invariant: it stays one line at every width.
 */

import { h } from "../dom.js";
import { icon } from "../icons.js";
import { createModelPicker } from "./model_picker.js";
import { createSidebarButton } from "./sidebar.js";

/**
 * @param {any} app
 * @returns {HTMLElement}
 */
export function createHeader(app) {
  const { state, t } = app;
  const label = t("page.chatSettings");
  const onclick = () => state.set({ panel: "chatSettings" });
  const attributes = { type: "button", "aria-label": label, title: label, "aria-haspopup": "dialog" };
  const settings = h("button", { class: "icon-button chat-header-end", ...attributes, onclick }, icon("settings"));
  return h("header", { class: "chat-header" }, createSidebarButton(app), createModelPicker(app), settings);
}
