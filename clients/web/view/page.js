/**
 * Where every part of the page goes.
 *
 * Knows nothing about what the parts do. Invariant: the keyboard meets them in the order in which they are
 * read: the list of conversations, the header, the messages, the box.
 */

import { h } from "../dom.js";
import { createAppSettings } from "./app_settings.js";
import { createChatSettings } from "./chat_settings.js";
import { createComposer } from "./composer.js";
import { createHeader } from "./header.js";
import { createKeyBanner, createKeyDialog } from "./key_dialog.js";
import { createMessages } from "./messages.js";
import { createConnectionBanner, createNotices } from "./notices.js";
import { createShortcuts } from "./shortcuts.js";
import { createSidebar } from "./sidebar.js";

/**
 * @param {any} app
 * @param {Window} view
 * @returns {HTMLElement[]} what the body holds
 */
export function createPage(app, view) {
  const main = h(
    "main",
    { class: "chat", "aria-label": app.t("page.main") },
    createHeader(app),
    createConnectionBanner(app),
    createKeyBanner(app),
    createMessages(app),
    createComposer(app),
  );
  return [
    h("a", { class: "skip-link", href: "#composer-input", onclick: skip }, app.t("page.skip")),
    h("div", { class: "app" }, createSidebar(app), main),
    createAppSettings(app),
    createChatSettings(app),
    createKeyDialog(app),
    createShortcuts(app, view),
    createNotices(app),
  ];
}

/** Not by the address, which names the conversation. */
function skip(event) {
  event.preventDefault();
  document.getElementById("composer-input").focus();
}
