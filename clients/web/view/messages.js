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
  /** @type {Map<string, ReturnType<typeof createMessageView>>} */
  const views = new Map();
  let conversationId = null;
  let answerId = null;
  /** Of the branch: the first message that is shown, and the first that is to be shown soon. */
  let start = 0;
  let target = 0;
  let filling = null;

  function begin(conversation, numMessages) {
    clearTimeout(filling);
    filling = null;
    views.clear();
    conversationId = conversation.id;
    start = Math.max(0, numMessages - FIRST_SLICE);
    target = Math.max(0, numMessages - WINDOW);
    scroller.follow();
  }

  function show() {
    const { conversation, streaming } = state.get();
    if (conversation === null) return;
    const branch = path(conversation);
    if (conversation.id !== conversationId) begin(conversation, branch.length);
    if (streaming && streaming.messageId !== answerId) scroller.follow();
    answerId = streaming?.messageId ?? null;
    // Another branch may be shorter; a long stay at the end makes the window longer.
    if (start > branch.length - FIRST_SLICE) start = Math.max(0, branch.length - FIRST_SLICE);
    if (scroller.isAtEnd() && branch.length - start > 2 * WINDOW) start = branch.length - WINDOW;
    target = Math.min(target, start);
    render(conversation, branch);
    if (start > target) filling ??= setTimeout(fillUp);
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
    for (const id of views.keys()) if (!wanted.has(id)) views.delete(id);
    const elements = visible.map((message, index) => {
      const view = views.get(message.id) ?? createMessageView(app);
      views.set(message.id, view);
      view.show({ message, siblings: children.get(message.parentId), isLast: index === visible.length - 1 });
      return view.element;
    });
    older.hidden = start === 0 || start > target;
    place(list, branch.length === 0 ? [empty] : elements);
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
