/**
 * Keeps the open conversation and what is stored of all of them in step.
 *
 * Knows nothing about what changes or why. Invariant: changes are stored one after the other, in the order in
 * which they were asked for; what is seen changes at once.
 */

/** @typedef {import("./conversation.js").Conversation} Conversation */

/** The setting under which an answer that is being written is kept until its conversation is saved. */
const openAnswerKey = (id) => `openAnswer:${id}`;

export class Shelf {
  #state;
  #store;
  #onFull;
  #last = Promise.resolve();

  /**
   * @param {object} app
   * @param {import("./state.js").State<any>} app.state
   * @param {any} app.store
   * @param {() => void} app.onFull told when the browser's disk has no room for what was to be stored
   */
  constructor({ state, store, onFull }) {
    this.#state = state;
    this.#store = store;
    this.#onFull = onFull;
  }

  /** Reads the list anew. @returns {Promise<void>} */
  refresh = () => this.#inTurn(() => this.#showSummaries());

  /** Keeps an answer's words so far, without writing its conversation; null takes them away. */
  keepOpenAnswer = (id, answer) => this.#store.setSetting(openAnswerKey(id), answer);

  /** @param {string} id @returns {Promise<Conversation | null>} the conversation, open from now on */
  open(id) {
    return this.#inTurn(async () => {
      if (this.#isOpen(id)) return this.#state.get().conversation;
      const conversation = await this.#stored(id);
      if (conversation) this.#state.set({ conversation });
      return conversation;
    });
  }

  /**
   * Changes a conversation, whether it is open or not, and saves it. One without messages is not saved.
   *
   * @param {string} id
   * @param {(conversation: Conversation) => Conversation} change
   * @returns {Promise<void>}
   */
  update = (id, change) => {
    const seen = this.#isOpen(id) ? change(this.#state.get().conversation) : null;
    if (seen) this.#state.set({ conversation: seen });
    return this.#inTurn(async () => {
      const before = this.#isOpen(id) ? this.#state.get().conversation : (seen ?? (await this.#stored(id)));
      if (!before) return;
      const changed = seen ? before : change(before);
      if (this.#isOpen(id)) this.#state.set({ conversation: changed });
      if (changed.leafId !== null) await this.save(changed);
    });
  };

  /** @param {Conversation} conversation */
  async save(conversation) {
    try {
      await this.#store.save(conversation);
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      this.#onFull();
    }
    await this.#showSummaries();
  }

  /** @param {string} id @returns {Promise<Conversation | null>} what was removed */
  remove(id) {
    return this.#inTurn(async () => {
      const conversation = await this.#stored(id);
      await this.#store.remove(id);
      await this.keepOpenAnswer(id, null);
      await this.#showSummaries();
      return conversation;
    });
  }

  /** Removes all conversations; settings stay. @returns {Promise<void>} */
  removeAll() {
    return this.#inTurn(async () => {
      for (const { id } of await this.#store.list()) await this.keepOpenAnswer(id, null);
      await this.#store.removeAll();
      await this.#showSummaries();
    });
  }

  #isOpen(id) {
    return this.#state.get().conversation?.id === id;
  }

  #inTurn(work) {
    const done = this.#last.then(work);
    this.#last = done.catch(() => undefined);
    return done;
  }

  async #showSummaries() {
    this.#state.set({ summaries: await this.#store.list() });
  }

  async #stored(id) {
    const conversation = await this.#store.load(id);
    const answer = conversation && (await this.#store.getSetting(openAnswerKey(id)));
    return answer ? withOpenAnswer(conversation, answer) : conversation;
  }
}

/** The page was left in the middle of an answer: its words are the last that were kept. */
function withOpenAnswer(conversation, answer) {
  const message = conversation.messages[answer.id];
  if (!message || message.finishReason) return conversation;
  const messages = { ...conversation.messages, [answer.id]: { ...message, ...answer, finishReason: "left" } };
  return { ...conversation, messages };
}
