/**
 * The column beside the chat: new chat, search, the list of conversations, settings.
 *
 * Knows nothing about the list's entries. On narrow windows it is a drawer over the chat. Invariant: while
 * the drawer is open nothing behind it can be reached, and while it is closed nothing in it.
 */
import { h, setProp } from "../dom.js";
import { icon } from "../icons.js";
import { isForInputMethod } from "../ime.js";
import { createConversationActions } from "./conversation_actions.js";
import { createConversationList } from "./conversation_list.js";

/** As in styles/sidebar.css. */
const DRAWER = "(max-width: 860px)";

/**
 * @param {any} app
 * @returns {HTMLElement}
 */
export function createSidebar(app) {
  const { state, t } = app;
  const actions = createConversationActions(app);
  const closeButton = iconButton("close", t("sidebar.close"), () => showSidebar(state, false));
  const sidebar = h(
    "aside",
    { id: "sidebar", class: "sidebar", "aria-label": t("sidebar.label") },
    h("div", { class: "sidebar-head" }, h("h1", { class: "sidebar-brand" }, "Ondol"), closeButton),
    newChatButton(app),
    searchBox(app),
    createConversationList(app, actions),
    footer(app),
  );
  sidebar.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isDrawer() && !isForInputMethod(event)) showSidebar(state, false);
  });
  const backdrop = h("div", { class: "sidebar-backdrop", onclick: () => showSidebar(state, false) });
  const frame = h("div", { class: "sidebar-frame" }, sidebar, backdrop);
  followDrawer(app, frame, { sidebar, closeButton });
  return frame;
}

/**
 * The button that opens the sidebar where it is hidden.
 *
 * @param {any} app
 * @returns {HTMLElement}
 */
export function createSidebarButton({ state, t }) {
  const button = iconButton("menu", t("sidebar.open"), () => toggleSidebar(state));
  setProp(button, "aria-controls", "sidebar");
  setProp(button, "id", "sidebar-button");
  const show = () => setProp(button, "aria-expanded", String(isShown(state.get())));
  state.subscribe(["isSidebarOpen", "isSidebarHidden"], show);
  show();
  return button;
}

/**
 * Opens or closes the drawer, or shows and hides the column where there is room for one.
 *
 * @param {import("../state.js").State<any>} state
 */
export function toggleSidebar(state) {
  showSidebar(state, !isShown(state.get()));
}

/**
 * The drawer is closed again by whatever is chosen in it; the column stays as it was left.
 *
 * @param {import("../state.js").State<any>} state
 * @param {boolean} isWanted
 */
export function showSidebar(state, isWanted) {
  state.set(isDrawer() ? { isSidebarOpen: isWanted } : { isSidebarHidden: !isWanted });
}

function isDrawer() {
  return matchMedia(DRAWER).matches;
}

function isShown({ isSidebarOpen, isSidebarHidden }) {
  return isDrawer() ? isSidebarOpen : !isSidebarHidden;
}

function followDrawer({ state }, frame, { sidebar, closeButton }) {
  const drawer = matchMedia(DRAWER);
  let wasOpen = false;
  const show = () => {
    const isShownNow = isShown(state.get());
    const isOpen = drawer.matches && isShownNow;
    const hadFocus = wasOpen || sidebar.contains(document.activeElement);
    frame.classList.toggle("is-open", isOpen);
    frame.classList.toggle("is-hidden", !drawer.matches && !isShownNow);
    sidebar.inert = !isShownNow;
    if (frame.nextElementSibling) frame.nextElementSibling.inert = isOpen;
    if (isOpen && !wasOpen) closeButton.focus();
    else if (!isShownNow && hadFocus) document.getElementById("sidebar-button")?.focus();
    wasOpen = isOpen;
  };
  drawer.addEventListener("change", () => {
    state.set({ isSidebarOpen: false });
    show();
  });
  state.subscribe(["isSidebarOpen", "isSidebarHidden"], show);
  show();
}

function newChatButton({ state, chat, t }) {
  const start = () => {
    chat.create();
    state.set({ isSidebarOpen: false, search: "" });
    // The box is out of reach until the drawer has heard that it is closed.
    setTimeout(() => document.getElementById("composer-input").focus());
  };
  return h("button", { class: "sidebar-new", type: "button", onclick: start }, icon("plus"), t("sidebar.newChat"));
}

function searchBox({ state, t }) {
  const input = h("input", {
    id: "sidebar-search",
    class: "sidebar-search-input",
    type: "search",
    placeholder: t("sidebar.searchHint"),
    "aria-label": t("sidebar.search"),
    autocomplete: "off",
    spellcheck: "false",
  });
  input.addEventListener("input", () => state.set({ search: input.value }));
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || isForInputMethod(event) || input.value === "") return;
    event.stopPropagation();
    state.set({ search: "" });
  });
  // A field that is being typed into is not written to: that would break the syllable.
  state.subscribe(["search"], ({ search }) => {
    if (search !== input.value) input.value = search;
  });
  return h("div", { class: "sidebar-search", role: "search" }, icon("search"), input);
}

function footer({ state, t }) {
  return h(
    "div",
    { class: "sidebar-foot" },
    panelButton(state, "settings", "gear", t("sidebar.settings")),
    panelButton(state, "shortcuts", "help", t("sidebar.shortcuts")),
  );
}

function panelButton(state, panel, name, label) {
  const onclick = () => state.set({ panel });
  return h("button", { class: `sidebar-foot-button sidebar-foot-${panel}`, type: "button", onclick }, icon(name), label);
}

function iconButton(name, label, onclick) {
  return h("button", { class: "icon-button", type: "button", "aria-label": label, title: label, onclick }, icon(name));
}
