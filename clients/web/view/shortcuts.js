/**
 * Keys that work everywhere in the page, and the dialog that lists them.
 *
 * Knows nothing about keys inside of fields and lists. Keys go by their place on the keyboard (`code`), so
 * that they work in the Hangul layout. Invariant: a key that belongs to the input method does nothing here.
 */
import { h } from "../dom.js";
import { isForInputMethod } from "../ime.js";
import { createPanel } from "./dialog.js";
import { showSidebar, toggleSidebar } from "./sidebar.js";

/**
 * @typedef {object} Shortcut
 * @property {string} name of its words
 * @property {string} code
 * @property {"mod" | "alt" | "shift" | "mod+shift" | ""} modifiers "mod" is Ctrl, or Command on a Mac
 * @property {string} key what stands on it
 * @property {(app: any) => void} run
 */

/** @type {readonly Shortcut[]} */
export const SHORTCUTS = Object.freeze([
  { name: "newChat", code: "KeyO", modifiers: "mod+shift", key: "O", run: newChat },
  { name: "search", code: "KeyK", modifiers: "mod", key: "K", run: search },
  { name: "model", code: "KeyM", modifiers: "alt", key: "M", run: () => document.getElementById("model-button").click() },
  { name: "sidebar", code: "KeyB", modifiers: "mod", key: "B", run: ({ state }) => toggleSidebar(state) },
  { name: "chatSettings", code: "Comma", modifiers: "mod+shift", key: ",", run: openPanel("chatSettings") },
  { name: "settings", code: "Comma", modifiers: "mod", key: ",", run: openPanel("settings") },
  { name: "composer", code: "Escape", modifiers: "shift", key: "Esc", run: focusComposer },
  { name: "help", code: "Slash", modifiers: "mod", key: "/", run: openPanel("shortcuts") },
]);

/** What fields do by themselves; listed only. */
const IN_FIELDS = Object.freeze([
  { name: "send", keys: ["Enter"] },
  { name: "newLine", keys: ["Shift", "Enter"] },
  { name: "stop", keys: ["Esc"] },
  { name: "editLast", keys: ["↑"] },
  { name: "rename", keys: ["F2"] },
  { name: "delete", keys: ["Delete"] },
]);

/**
 * Listens to the window, and makes the help dialog.
 *
 * @param {any} app
 * @param {Window} view
 * @returns {HTMLDialogElement}
 */
export function createShortcuts(app, view) {
  const { t } = app;
  const isMac = /Mac|iPhone|iPad/.test(view.navigator.platform);
  view.addEventListener("keydown", (event) => {
    if (isForInputMethod(event)) return;
    const isHelp = event.key === "?" && !event.ctrlKey && !event.metaKey && !isTyping(event.target);
    const shortcut = isHelp ? SHORTCUTS.at(-1) : matching(event, isMac);
    if (!shortcut) return;
    event.preventDefault();
    // What is under an open dialog stays as it is, as for the pointer.
    if (!view.document.querySelector("dialog[open]")) shortcut.run(app);
  });
  const rows = [
    ...SHORTCUTS.map(({ name, key, modifiers }) => row(t(`shortcut.${name}`), [...modifierKeys(modifiers, isMac), key])),
    ...IN_FIELDS.map(({ name, keys }) => row(t(`shortcut.${name}`), keys)),
  ];
  return createPanel(app, "shortcuts", { title: t("shortcuts.title") }, {}, h("dl", { class: "shortcuts" }, rows));
}

/**
 * @param {KeyboardEvent} event
 * @param {boolean} isMac
 * @returns {Shortcut | undefined}
 */
export function matching(event, isMac) {
  const isMod = isMac ? event.metaKey : event.ctrlKey;
  const hasOther = isMac ? event.ctrlKey : event.metaKey;
  const pressed = [isMod && "mod", event.altKey && "alt", event.shiftKey && "shift"].filter(Boolean).join("+");
  return hasOther ? undefined : SHORTCUTS.find(({ code, modifiers }) => code === event.code && modifiers === pressed);
}

function modifierKeys(modifiers, isMac) {
  const names = isMac ? { mod: "⌘", alt: "⌥", shift: "⇧" } : { mod: "Ctrl", alt: "Alt", shift: "Shift" };
  return modifiers.split("+").filter(Boolean).map((modifier) => names[modifier]);
}

function row(label, keys) {
  return h("div", { class: "shortcut" }, h("dt", null, label), h("dd", null, keys.map((key) => h("kbd", null, key))));
}

function isTyping(target) {
  return target instanceof HTMLElement && (target.isContentEditable || target.matches("input, textarea, select"));
}

function newChat({ chat }) {
  chat.create();
  focusComposer();
}

function search({ state }) {
  showSidebar(state, true);
  // The sidebar is reachable again after the state was told.
  setTimeout(() => document.getElementById("sidebar-search").focus());
}

function focusComposer() {
  document.getElementById("composer-input").focus();
}

function openPanel(panel) {
  return ({ state }) => state.set({ panel });
}
