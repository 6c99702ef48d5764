/**
 * One message: its text, what can be done with it, and how it came to its end.
 *
 * Knows nothing about other messages. Invariant: what did not change is not touched, so that selections,
 * focus and the place in a long answer stay while it grows.
 */

import { copyText } from "../clipboard.js";
import { fill, h } from "../dom.js";
import { endingOf } from "../endings.js";
import { formatNumber } from "../i18n.js";
import { icon } from "../icons.js";
import { splitThought } from "../thoughts.js";
import { createEditor } from "./editor.js";
import { createEndingView } from "./ending.js";

const COPIED_MS = 1600;

/**
 * @typedef {object} Shown
 * @property {import("../conversation.js").Message} message
 * @property {import("../conversation.js").Message[]} siblings the message among its alternatives
 * @property {boolean} isLast
 */

/**
 * @param {any} app
 * @returns {{ element: HTMLElement, show(shown: Shown): void }}
 */
export function createMessageView(app) {
  const { state, t } = app;
  const element = h("article", { class: "message" });
  let parts = null;
  let before = {};

  return {
    element,
    show({ message, siblings, isLast }) {
      const { streaming, editing, conversation } = state.get();
      const live = streaming?.messageId === message.id ? streaming : null;
      const isEditing = editing === message.id && streaming === null;
      const isFirstRead = conversation.firstReadId === message.id;
      const place = siblings.indexOf(message);
      const now = { message, live, isEditing, isLast, isFirstRead, place, numSiblings: siblings.length };
      if (Object.keys(now).every((key) => Object.is(now[key], before[key]))) return;
      before = now;
      parts ??= message.role === "user" ? createQuestion(app) : createAnswer(app);
      element.className = `message is-${message.role}${isLast ? " is-last" : ""}`;
      element.setAttribute("aria-label", t(message.role === "user" ? "message.yours" : "message.models"));
      const divider = isFirstRead && h("p", { class: "message-divider" }, t("message.firstRead"));
      const body = isEditing ? [createEditor(app, message)] : parts.show(now);
      const actions = !isEditing && (live ? parts.progress(now) : parts.actions(now, siblings));
      fill(element, divider, ...body, actions);
      if (!isEditing) return;
      element.querySelector("textarea").focus();
      element.scrollIntoView({ block: "nearest" });
    },
  };
}

function createQuestion(app) {
  const text = h("div", { class: "message-bubble" });
  return {
    show({ message }) {
      if (text.textContent !== message.content) text.textContent = message.content;
      return [text];
    },
    progress: () => null,
    actions: ({ message }, siblings) =>
      h(
        "div",
        { class: "message-actions" },
        branches(app, message, siblings),
        copyButton(app, message),
        editButton(app, message),
      ),
  };
}

function createAnswer(app) {
  const { t } = app;
  const thoughts = createThoughts(app);
  const content = h("div", { class: "message-content markdown" });
  const waiting = h("p", { class: "message-waiting" });
  // As high as the actions that take its place, so that nothing moves when the answer ends.
  const writing = h("p", { class: "message-actions message-writing" }, t("message.writing"));
  const ending = createEndingView(app);
  return {
    show({ message, live, isLast }) {
      const { thought, answer, isThinking } = splitThought(live?.text ?? message.content);
      const reasoning = (live?.reasoning ?? message.reasoning) || thought;
      app.markdown.render(content, answer, { isFinal: live === null });
      thoughts.show(reasoning, { isThinking: live !== null && (isThinking || !answer) });
      const reason = live && waitingWords(app, live, Boolean(answer || reasoning));
      waiting.textContent = reason ?? "";
      return [
        reasoning && thoughts.element,
        answer && content,
        reason && waiting,
        live === null && ending.show(message, { isLast }),
      ];
    },
    progress: () => waiting.textContent === "" && writing,
    actions: ({ message }, siblings) =>
      h(
        "div",
        { class: "message-actions" },
        branches(app, message, siblings),
        message.content && copyButton(app, message),
        message.content && editButton(app, message),
        change(app, "retry", t("message.regenerate"), () => app.chat.regenerate(message.id)),
        whyItStopped(app, message),
        h("span", { class: "message-stats" }, statsWords(app, message)),
      ),
  };
}

/** Why nothing is seen yet; null once words come. */
function waitingWords({ state, t }, live, hasWords) {
  if (live.waitingFor === "daemon" && !hasWords) return t("waiting.unasked");
  if (live.waitingFor) return t(`waiting.${live.waitingFor}`);
  if (hasWords) return null;
  if (live.queuePosition === 1) return t("waiting.next");
  if (live.queuePosition) return t("waiting.queue", { numAhead: live.queuePosition - 1 });
  const model = state.get().models.find(({ id }) => id === state.get().modelId);
  if (model && ["loading", "downloading"].includes(model.status.value)) return t("waiting.model");
  return t("waiting.answer");
}

function statsWords({ state, t }, { modelId, stats = {} }) {
  const { locale } = state.get();
  const words = [modelId];
  if (stats.tokensPerS) words.push(t("stats.tokensPerS", { speed: stats.tokensPerS }));
  if (stats.ttftS !== undefined) {
    words.push(t("stats.ttft", { seconds: formatNumber(Math.max(stats.ttftS, 0.01), locale, 2) }));
  }
  return words.filter(Boolean).join(" · ");
}

/** Of an answer that is whole; what else happened is said without being asked (view/ending.js). */
function whyItStopped({ state, t }, message) {
  const ending = endingOf(message, state.get().conversation);
  if (ending.kind !== "whole") return null;
  return h("details", { class: "message-why" }, h("summary", null, t("stats.why")), t(ending.key));
}

/** What the model thought, folded once it answers. */
function createThoughts({ t }) {
  const text = h("div", { class: "thoughts-text" });
  const title = h("span");
  const summary = h("summary", { class: "thoughts-title" }, icon("bulb"), title);
  const element = h("details", { class: "thoughts" }, summary, text);
  return {
    element,
    show(thought, { isThinking }) {
      title.textContent = t(isThinking ? "thoughts.now" : "thoughts.past");
      element.classList.toggle("is-thinking", isThinking);
      if (text.textContent !== thought) text.textContent = thought;
    },
  };
}

function action(name, label, onclick) {
  const attributes = { class: "message-action", type: "button", "aria-label": label, title: label };
  return h("button", { ...attributes, onclick }, icon(name));
}

/** What would change the branch under an answer that is being written has to wait for its end. */
function change({ state, t }, name, label, run) {
  const button = action(name, label, () => {
    if (state.get().streaming) state.set({ notice: { kind: "info", text: t("message.busy") } });
    else run();
  });
  button.classList.add("is-change");
  return button;
}

function editButton(app, message) {
  return change(app, "edit", app.t("message.edit"), () => app.state.set({ editing: message.id }));
}

function copyButton(app, message) {
  const { t } = app;
  const button = action("copy", t("message.copy"), async () => {
    const isCopied = await copyText(message.role === "user" ? message.content : splitThought(message.content).answer);
    if (!isCopied) return app.state.set({ notice: { kind: "error", text: t("message.notCopied") } });
    button.replaceChildren(icon("check"));
    button.setAttribute("aria-label", t("message.copied"));
    setTimeout(() => {
      button.replaceChildren(icon("copy"));
      button.setAttribute("aria-label", t("message.copy"));
    }, COPIED_MS);
  });
  return button;
}

/** ‹ 2/3 ›, where there are alternatives. */
function branches(app, message, siblings) {
  if (siblings.length < 2) return null;
  const { chat, t } = app;
  const place = siblings.indexOf(message);
  const step = (name, label, to) => {
    const button = change(app, name, label, () => chat.select(siblings[to].id));
    button.disabled = !siblings[to];
    return button;
  };
  return h(
    "span",
    { class: "message-branches", role: "group", "aria-label": t("branch.label") },
    step("left", t("branch.previous"), place - 1),
    h("span", { class: "message-branch" }, `${place + 1}/${siblings.length}`),
    step("right", t("branch.next"), place + 1),
  );
}
