/**
 * The open conversation, as far as it is looked at.
 *
 * Knows nothing about what a message looks like. Invariant: only the newest messages are in the page until
 * somebody scrolls up, and messages that come in above or below never move what is being read.
 */

import { childrenByParent, path } from "../conversation.js";
import { h } from "../dom.js";
import { icon } from "../icons.js";
import { createAnnouncer } from "./announcer.js";
import { createEmptyState } from "./empty_state.js";
import { createMessageView } from "./message.js";
import { createScroller } from "./scroller.js";

/** As many as fill a screen, at once; the others in slices, so that no task is long. */
const FIRST_SLICE = 6;
const SLICE = 4;
const WINDOW = 60;

/**
 * @param {any} app
 * @returns {HTMLElement}
 */
export function createMessages(app) {
  const { state, t } = app;
  const list = h("div", { class: "messages-list", role: "log", "aria-live": "off", "aria-label": t("messages.label") });
  const older = h("button", { class: "messages-older", type: "button", hidden: true }, t("messages.older"));
  const pane = h("div", { class: "messages-pane", tabindex: "-1" }, older, list);
  const toEnd = h(
    "button",
    { class: "messages-to-end", type: "button", hidden: true, "aria-label": t("messages.toEnd"), title: t("messages.toEnd") },
    icon("down"),
  );
  const scroller = createScroller(pane, list, { onMove: (isAtEnd) => (toEnd.hidden = isAtEnd) });
  const empty = createEmptyState(app);
  const root = h("div", { class: "messages" }, pane, toEnd, createAnnouncer(app));
  state.subscribe(["streaming"], ({ streaming }) => list.classList.toggle("is-busy", streaming !== null));
  const shown = createWindow({ app, list, older, empty, scroller });

  older.addEventListener("click", () => shown.reveal(WINDOW));
  toEnd.addEventListener("click", () => scroller.follow());
  state.subscribe(["conversation", "streaming", "editing", "models", "modelId", "connection"], shown.show);
  shown.show();
  return root;
}

/** Which messages are in the page, and their views. */
function createWindow({ app, list, older, empty, scroller }) {
  const { state } = app;
  /** @type {Map<string, { view: ReturnType<typeof createMessageView>, shown: import("./message.js").Shown }>} */
  const messages = new Map();
  let scene = {};
  /** Of the branch: the first message that is shown, and the first that is to be shown soon. */
  let start = 0;
  let target = 0;
  let filling = null;

  function show() {
    const { conversation, streaming, editing } = state.get();
    const answerId = streaming?.messageId ?? null;
    const now = { conversation, answerId, editing, start };
    const before = scene;
    if (Object.keys(now).every((key) => now[key] === before[key])) {
      redraw(answerId);
      return;
    }
    const branch = path(conversation);
    if (conversation.id !== before.conversation?.id) begin(branch.length);
    if (answerId !== null && answerId !== before.answerId) scroller.follow();
    settle(branch.length);
    scene = { ...now, start };
    render(conversation, branch);
    if (start > target) filling ??= setTimeout(fillUp);
  }

  function begin(numMessages) {
    clearTimeout(filling);
    filling = null;
    messages.clear();
    start = Math.max(0, numMessages - FIRST_SLICE);
    target = Math.max(0, numMessages - WINDOW);
    scroller.follow();
  }

  /** Another branch may be shorter; a long stay at the end makes the window longer. */
  function settle(numMessages) {
    if (start > numMessages - FIRST_SLICE) start = Math.max(0, numMessages - FIRST_SLICE);
    target = Math.min(target, start);
    if (scroller.isAtEnd() && numMessages - start > 2 * WINDOW) start = target = numMessages - WINDOW;
  }

  function fillUp() {
    filling = null;
    start = Math.max(target, start - SLICE);
    scroller.keepInPlace(show);
  }

  function render(conversation, branch) {
    const children = childrenByParent(conversation);
    const visible = branch.slice(start);
    const wanted = new Set(visible.map((message) => message.id));
    for (const id of messages.keys()) if (!wanted.has(id)) messages.delete(id);
    const elements = visible.map((message, index) => {
      const view = messages.get(message.id)?.view ?? createMessageView(app);
      const shown = { message, siblings: children.get(message.parentId), isLast: index === visible.length - 1 };
      messages.set(message.id, { view, shown });
      view.show(shown);
      return view.element;
    });
    older.hidden = start === 0 || start > target;
    place(list, branch.length === 0 ? [empty] : elements);
  }

  /** What grows while an answer is written is one message; the others are not looked at. */
  function redraw(id) {
    const entry = messages.get(id);
    entry?.view.show(entry.shown);
  }

  return {
    show,
    /** @param {number} count further messages above */
    reveal(count) {
      target = Math.max(0, start - count);
      fillUp();
    },
  };
}

/** Puts the elements in order, moving none that is in its place: moved ones would lose focus and selection. */
function place(list, elements) {
  const wanted = new Set(elements);
  for (const child of [...list.children]) if (!wanted.has(child)) child.remove();
  let next = list.firstElementChild;
  for (const element of elements) {
    if (element === next) next = next.nextElementSibling;
    else list.insertBefore(element, next);
  }
}
