/**
 * The page's settings: language, theme, keys, and what is kept in this browser.
 *
 * Knows nothing about conversations. Invariant: what is chosen holds at once and after a reload.
 */
import { h } from "../dom.js";
import { LOCALES } from "../i18n.js";
import { THEMES } from "../theme.js";
import { createConversationActions } from "./conversation_actions.js";
import { createPanel } from "./dialog.js";
import { segmentedField, selectField } from "./fields.js";
import { KEY_PANEL } from "./key_dialog.js";

/** The languages in their own words. */
const LANGUAGES = Object.freeze({ ko: "한국어", en: "English" });
const NUM_SHOWN_KEY_CHARACTERS = 4;

/**
 * @param {any} app
 * @returns {HTMLDialogElement}
 */
export function createAppSettings(app) {
  const { t } = app;
  const key = keySection(app);
  const data = dataSection(app);
  const onOpen = () => {
    void key.show();
    data.show();
  };
  return createPanel(app, "settings", { title: t("settings.title") }, { onOpen }, lookSection(app), key.element, data.element);
}

function lookSection({ state, store, t }) {
  const { locale, theme, sendKey } = state.get();
  const language = selectField({
    id: "settings-language",
    label: t("settings.language"),
    choices: LOCALES.map((value) => ({ value, label: LANGUAGES[value] })),
    value: locale,
    // Every word of the page changes; a reload keeps drafts, conversations and unfinished answers.
    onChoose: (value) => void store.setSetting("locale", value).then(() => location.reload()),
  });
  const look = segmentedField({
    name: "theme",
    label: t("settings.theme"),
    choices: THEMES.map((value) => ({ value, label: t(`theme.${value}`) })),
    value: theme,
    onChoose: (value) => state.set({ theme: value }),
  });
  const send = segmentedField({
    name: "send-key",
    label: t("settings.sendKey"),
    choices: ["enter", "mod-enter"].map((value) => ({ value, label: t(`sendKey.${value}`) })),
    value: sendKey ?? "enter",
    onChoose: (value) => state.set({ sendKey: value }),
  });
  return h("section", { class: "form" }, language, look, send);
}

function keySection({ state, store, api, t }) {
  const shown = h("p", { class: "form-text" });
  const remove = h("button", { class: "button", type: "button" }, t("key.delete"));
  const change = h("button", { class: "button", type: "button", onclick: () => state.set({ panel: KEY_PANEL }) }, t("key.enter"));
  const show = async () => {
    const key = (await store.getSetting("apiKey")) ?? "";
    shown.textContent = key ? t("key.kept", { ending: key.slice(-NUM_SHOWN_KEY_CHARACTERS) }) : t("key.none");
    remove.hidden = key === "";
  };
  remove.addEventListener("click", async () => {
    api.setKey("");
    await store.setSetting("apiKey", null);
    await show();
    change.focus();
  });
  const element = section(t("key.label"), shown, h("div", { class: "form-buttons" }, change, remove));
  return { element, show };
}

function dataSection(app) {
  const { state, store, t } = app;
  const actions = createConversationActions(app);
  const button = (label, onclick, className = "") => h("button", { class: ["button", className], type: "button", onclick }, label);
  const file = h("input", { type: "file", accept: ".json,application/json", hidden: true, "aria-label": t("data.import") });
  file.addEventListener("change", () => {
    const [chosen] = file.files;
    if (chosen) void actions.importFile(chosen);
    file.value = "";
  });
  const exportAll = button(t("data.export"), () => void actions.exportJson());
  const remove = confirmedButton(t("data.removeAll"), t("data.removeAllSure"), () => void actions.removeAll());
  const note = h("p", { class: "form-text" });
  const show = () => {
    remove.reset();
    exportAll.disabled = state.get().summaries.length === 0;
    note.textContent = store.isPersistent ? t("data.note") : t("data.notKept");
  };
  const buttons = h("div", { class: "form-buttons" }, exportAll, button(t("data.import"), () => file.click()), file, remove.element);
  return { element: section(t("data.title"), note, buttons), show };
}

/** A button that asks before it does what cannot be undone: the second press does it. */
function confirmedButton(label, question, run) {
  const element = h("button", { class: "button is-danger", type: "button" }, label);
  let isAsking = false;
  const set = (asking) => {
    isAsking = asking;
    element.textContent = asking ? question : label;
    element.classList.toggle("is-asking", asking);
  };
  element.addEventListener("click", () => {
    if (isAsking) run();
    set(!isAsking);
  });
  element.addEventListener("blur", () => set(false));
  return { element, reset: () => set(false) };
}

function section(title, ...children) {
  return h("section", { class: "form" }, h("h3", { class: "form-heading" }, title), ...children);
}
