/**
 * The box that questions are typed into.
 *
 * Knows nothing about requests. Invariant: the text is never rewritten while a syllable is being
 * composed, and a question leaves the box exactly once, whole.
 */

import { h, setProp } from "../dom.js";
import { icon } from "../icons.js";
import { isForInputMethod, isSendKey, watchComposition } from "../ime.js";
import { createGauges } from "./gauges.js";

/** The draft of conversations that nothing was said in yet. */
const NEW = "new";

/**
 * @param {any} app
 * @returns {HTMLElement}
 */
export function createComposer(app) {
  const { state, chat } = app;
  const field = createInput(app);
  const box = createBox({ app, field });
  const button = createSendButton(app, field);
  const form = h(
    "form",
    { class: "composer", novalidate: true },
    h("div", { class: "composer-box" }, field, button),
    h("div", { class: "composer-foot" }, createGauges(app), createHint(app)),
  );
  field.addEventListener("input", () => {
    grow(field);
    box.keep();
  });
  field.addEventListener("keydown", (event) => onKey(event, { app, field, box }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (state.get().streaming) chat.stop();
    else void box.send();
  });
  state.subscribe(["conversation"], box.show);
  box.show();
  return form;
}

function createInput({ t }) {
  return h("textarea", {
    id: "composer-input",
    class: "composer-input",
    rows: 1,
    placeholder: t("composer.placeholder"),
    "aria-label": t("composer.label"),
    "aria-describedby": "composer-hint",
    autocomplete: "off",
    enterkeyhint: isCoarse() ? "enter" : "send",
  });
}

/** Sends; while an answer is written it stops that. */
function createSendButton({ state, t }, field) {
  const button = h("button", { class: "composer-send", type: "submit" });
  function show() {
    const isStreaming = state.get().streaming !== null;
    const label = t(isStreaming ? "composer.stop" : "composer.send");
    // Not `disabled`: that would throw the focus away while the answer begins.
    setProp(button, "aria-disabled", !isStreaming && field.value.trim() === "");
    if (button.title === label) return;
    setProp(button, "aria-label", label);
    setProp(button, "title", label);
    button.classList.toggle("is-stop", isStreaming);
    button.replaceChildren(icon(isStreaming ? "stop" : "send"));
  }
  field.addEventListener("input", show);
  state.subscribe(["streaming"], show);
  show();
  return button;
}

function createHint({ state, t }) {
  const hint = h("p", { id: "composer-hint", class: "composer-hint" });
  function show() {
    hint.textContent = t(isCoarse() ? "composer.hintTouch" : `composer.hint.${state.get().sendKey}`);
  }
  state.subscribe(["sendKey"], show);
  show();
  return hint;
}

/** The field's text and where it is kept. */
function createBox({ app, field }) {
  const { state, chat, drafts, t } = app;
  const composition = watchComposition(field);
  let shownId = null;
  let isSending = false;

  const draftId = (conversation) => (conversation.leafId === null ? NEW : conversation.id);

  function write(text) {
    field.value = text;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  return {
    keep: () => drafts.set(draftId(state.get().conversation), field.value),
    /** Another conversation, another draft. */
    show() {
      const { conversation } = state.get();
      if (conversation === null || conversation.id === shownId) return;
      shownId = conversation.id;
      write(drafts.get(draftId(conversation)));
    },
    async send() {
      if (isSending) return;
      isSending = true;
      const hadFocus = composition.isActive() || document.activeElement === field;
      await composition.settled();
      isSending = false;
      const reason = hindrance(state.get());
      if (reason && field.value.trim() !== "") state.set({ notice: { kind: "info", text: t(reason) } });
      const draft = draftId(state.get().conversation);
      if (reason || !chat.send(field.value)) return;
      drafts.set(draft, "");
      write("");
      if (hadFocus) field.focus();
    },
  };
}

/** Why nothing can be sent now; the text stays in the box. @returns {string | null} */
function hindrance({ streaming, models, modelId }) {
  if (streaming) return "composer.busy";
  return modelId === null && models.length > 0 ? "composer.noModel" : null;
}

/** @param {KeyboardEvent} event */
function onKey(event, { app, field, box }) {
  if (isForInputMethod(event)) return;
  const { state, chat } = app;
  const isStreaming = state.get().streaming !== null;
  if (isSendKey(event, { sendKey: state.get().sendKey, isCoarse: isCoarse() })) {
    event.preventDefault();
    if (!event.repeat) void box.send();
  } else if (event.key === "Escape" && isStreaming) {
    event.preventDefault();
    chat.stop();
  } else if (event.key === "ArrowUp" && field.value === "" && !event.shiftKey && !isStreaming) {
    event.preventDefault();
    state.set({ editing: lastQuestion(state.get().conversation) });
  }
}

/** @returns {string | null} */
function lastQuestion(conversation) {
  for (let id = conversation.leafId; id !== null; id = conversation.messages[id].parentId) {
    if (conversation.messages[id].role === "user") return id;
  }
  return null;
}

/** @returns {boolean} whether fingers type */
export function isCoarse() {
  return matchMedia("(pointer: coarse)").matches;
}

/** As high as its text, where CSS alone cannot do that; the style sheet says how high at most. */
function grow(field) {
  if (CSS.supports("field-sizing", "content")) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}
