/**
 * Which messages of the open conversation are in the page.
 *
 * Knows nothing about what a message looks like. Invariant: of a long conversation only the newest messages
 * are in the page until somebody asks for more, and while an answer is written only its own is drawn.
 */

import { childrenByParent, path } from "../conversation.js";
import { createEmptyState } from "./empty_state.js";
import { createMessageView } from "./message.js";

/** As many as fill a screen, at once; the others in slices, so that no task is long. */
const FIRST_SLICE = 6;
const SLICE = 4;
const WINDOW = 60;

/** @typedef {import("./message.js").Shown} Shown */

export class MessageWindow {
  #parts;
  #empty;
  /** @type {Map<string, { view: ReturnType<typeof createMessageView>, shown: Shown }>} */
  #messages = new Map();
  #scene = {};
  /** Of the branch: the first message that is in the page, and the first that is to be there soon. */
  #start = 0;
  #target = 0;
  #filling = null;

  /**
   * @param {object} parts
   * @param {any} parts.app
   * @param {HTMLElement} parts.list
   * @param {HTMLElement} parts.older the button that asks for earlier messages
   * @param {import("./scroller.js").Scroller} parts.scroller
   */
  constructor(parts) {
    this.#parts = parts;
    this.#empty = createEmptyState(parts.app);
  }

  /** Has further messages come in above. */
  reveal() {
    this.#target = Math.max(0, this.#start - WINDOW);
    this.#fillUp();
  }

  /** Brings the page up to the state. */
  show() {
    const { conversation, streaming, editing } = this.#parts.app.state.get();
    const answerId = streaming?.messageId ?? null;
    const now = { conversation, answerId, editing, start: this.#start };
    const before = this.#scene;
    if (Object.keys(now).every((key) => now[key] === before[key])) {
      this.#redraw(answerId);
      return;
    }
    const branch = path(conversation);
    if (conversation.id !== before.conversation?.id) this.#begin(branch.length);
    if (answerId !== null && answerId !== before.answerId) this.#parts.scroller.follow();
    if (editing !== null && editing !== before.editing) this.#parts.scroller.leave();
    this.#settle(branch.length);
    this.#scene = { ...now, start: this.#start };
    this.#render(conversation, branch);
    if (this.#start > this.#target) this.#filling ??= setTimeout(() => this.#fillUp());
  }

  #begin(numMessages) {
    clearTimeout(this.#filling);
    this.#filling = null;
    this.#messages.clear();
    this.#start = Math.max(0, numMessages - FIRST_SLICE);
    this.#target = Math.max(0, numMessages - WINDOW);
    this.#parts.scroller.follow();
  }

  /** Another branch may be shorter; a long stay at the end makes the window longer. */
  #settle(numMessages) {
    this.#start = Math.min(this.#start, Math.max(0, numMessages - FIRST_SLICE));
    this.#target = Math.min(this.#target, this.#start);
    if (this.#parts.scroller.isAtEnd && numMessages - this.#start > 2 * WINDOW) {
      this.#start = this.#target = numMessages - WINDOW;
    }
  }

  #fillUp() {
    this.#filling = null;
    this.#start = Math.max(this.#target, this.#start - SLICE);
    this.#parts.scroller.keepInPlace(() => this.show());
  }

  #render(conversation, branch) {
    const children = childrenByParent(conversation);
    const visible = branch.slice(this.#start);
    const wanted = new Set(visible.map((message) => message.id));
    for (const id of this.#messages.keys()) if (!wanted.has(id)) this.#messages.delete(id);
    const elements = visible.map((message, index) => {
      const view = this.#messages.get(message.id)?.view ?? createMessageView(this.#parts.app);
      const shown = { message, siblings: children.get(message.parentId), isLast: index === visible.length - 1 };
      this.#messages.set(message.id, { view, shown });
      view.show(shown);
      return view.element;
    });
    this.#parts.older.hidden = this.#start === 0 || this.#start > this.#target;
    place(this.#parts.list, branch.length === 0 ? [this.#empty] : elements);
  }

  /** What grows while an answer is written is one message; the others are not looked at. */
  #redraw(id) {
    const entry = this.#messages.get(id);
    entry?.view.show(entry.shown);
  }
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
