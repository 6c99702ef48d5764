/**
 * Asks for the API key when the daemon wants one.
 *
 * Knows nothing about what was refused: who waits for `needsKey` to become false tries again. Invariant:
 * a key is kept only after the daemon took it.
 */
import { h } from "../dom.js";
import { createPanel } from "./dialog.js";

/** What the state's `panel` is while the dialog is open. */
export const KEY_PANEL = "key-dialog";

/**
 * @param {any} app
 * @returns {HTMLDialogElement}
 */
export function createKeyDialog(app) {
  const { state, t } = app;
  const problem = h("p", { id: "key-problem", class: "field-problem", role: "alert" });
  const input = h("input", {
    id: "key-input",
    class: "field-input",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    autofocus: true,
    "aria-describedby": "key-hint key-problem",
  });
  const submit = h("button", { class: "button is-primary", type: "submit" }, t("key.submit"));
  const form = h(
    "form",
    { class: "form" },
    h("p", { id: "key-hint", class: "form-text" }, t("key.text")),
    h("div", { class: "field" }, h("label", { class: "field-label", for: "key-input" }, t("key.label")), input, problem),
    h("div", { class: "form-buttons" }, submit),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void tryKey(app, { input, submit, problem });
  });
  const onOpen = () => {
    problem.textContent = "";
  };
  const dialog = createPanel(app, KEY_PANEL, { title: t("key.title"), className: "is-narrow" }, { onOpen }, form);
  state.subscribe(["needsKey"], ({ needsKey, panel }) => {
    if (needsKey) state.set({ panel: KEY_PANEL });
    else if (panel === KEY_PANEL) state.set({ panel: null });
  });
  return dialog;
}

/**
 * Whoever closed the dialog without a key opens it again here.
 *
 * @param {any} app
 * @returns {HTMLElement}
 */
export function createKeyBanner({ state, t }) {
  const open = () => state.set({ panel: KEY_PANEL });
  const button = h("button", { class: "banner-action", type: "button", onclick: open }, t("key.enter"));
  const banner = h("div", { class: "banner is-gone", hidden: true }, t("key.missing"), button);
  const show = () => {
    banner.hidden = !state.get().needsKey;
  };
  state.subscribe(["needsKey"], show);
  show();
  return banner;
}

async function tryKey({ state, api, store, t }, { input, submit, problem }) {
  const key = input.value.trim();
  if (key === "" || submit.disabled) return;
  submit.disabled = true;
  problem.textContent = "";
  try {
    api.setKey(key);
    await api.models();
    await store.setSetting("apiKey", key);
    input.value = "";
    state.set({ needsKey: false });
  } catch (error) {
    if (error.name !== "ApiError") throw error;
    const isWrong = error.code === "invalid_api_key";
    api.setKey((await store.getSetting("apiKey")) ?? "");
    problem.textContent = isWrong ? t("key.wrong") : t("key.unchecked", { message: error.message });
    input.select();
  } finally {
    submit.disabled = false;
  }
}
