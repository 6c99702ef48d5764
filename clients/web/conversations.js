/**
 * What can be done with conversations beside answering: open, start, name, keep, remove.
 *
 * Knows nothing about the network or how anything looks. Invariant: what the state shows as the open
 * conversation and what the store holds of it change together, one change after the other.
 */

import { createConversation, titleFrom } from "./conversation.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */

/** The setting under which an answer that is being written is kept until its conversation is saved. */
const openAnswerKey = (id) => `openAnswer:${id}`;

/**
 * @param {object} app
 * @param {import("./state.js").State<any>} app.state
 * @param {any} app.store
 */
export function createConversations({ state, store }) {
  let last = Promise.resolve();

  /** Runs after everything that was asked for before it. */
  function inTurn(work) {
    const done = last.then(work);
    last = done.catch(() => undefined);
    return done;
  }

  async function showSummaries() {
    state.set({ summaries: await store.list() });
  }

  async function stored(id) {
    const conversation = await store.load(id);
    const answer = conversation && (await store.getSetting(openAnswerKey(id)));
    return answer ? withOpenAnswer(conversation, answer) : conversation;
  }

  const isOpen = (id) => state.get().conversation?.id === id;

  const conversations = {
    /** Reads the list anew. */
    refresh: () => inTurn(showSummaries),

    /** Shows an empty conversation; it is kept from the first message on. */
    create() {
      state.set({ conversation: createConversation({ modelId: state.get().modelId }) });
    },

    /** @param {string} id @returns {Promise<boolean>} whether it exists */
    open: (id) =>
      inTurn(async () => {
        if (isOpen(id)) return true;
        const conversation = await stored(id);
        if (!conversation) return false;
        const { models } = state.get();
        const hasModel = models.some((model) => model.id === conversation.modelId);
        state.set({ conversation, ...(hasModel ? { modelId: conversation.modelId } : {}) });
        return true;
      }),

    /**
     * Changes a conversation, whether it is open or not, and saves it.
     *
     * @param {string} id
     * @param {(conversation: Conversation) => Conversation} change
     * @returns {Promise<void>}
     */
    update(id, change) {
      // What is seen changes at once; what is stored, in its turn.
      const seen = isOpen(id) ? change(state.get().conversation) : null;
      if (seen) state.set({ conversation: seen });
      return inTurn(async () => {
        const before = isOpen(id) ? state.get().conversation : (seen ?? (await stored(id)));
        if (!before) return;
        const changed = seen ? before : change(before);
        if (isOpen(id)) state.set({ conversation: changed });
        if (Object.keys(changed.messages).length === 0) return;
        await store.save(changed);
        await showSummaries();
      });
    },

    /** @param {string} id @param {string} title */
    rename: (id, title) => conversations.update(id, (conversation) => ({ ...conversation, title: title.trim() })),

    /** @param {string} id @param {boolean} isPinned */
    setPinned: (id, isPinned) => conversations.update(id, (conversation) => ({ ...conversation, isPinned })),

    /**
     * The open conversation's own settings.
     * @param {Partial<Pick<Conversation, "system" | "parameters" | "modelId">>} patch
     */
    configure(patch) {
      const { conversation } = state.get();
      return conversations.update(conversation.id, (current) => ({ ...current, ...patch }));
    },

    /** @param {string} modelId the model that answers from now on */
    chooseModel(modelId) {
      state.set({ modelId });
      return conversations.configure({ modelId });
    },

    /** @param {string} id @returns {Promise<Conversation | null>} what was removed, for `restore` */
    remove: (id) =>
      inTurn(async () => {
        const conversation = await stored(id);
        await store.remove(id);
        await store.setSetting(openAnswerKey(id), null);
        if (isOpen(id)) conversations.create();
        await showSummaries();
        return conversation;
      }),

    /** @param {Conversation} conversation */
    restore: (conversation) =>
      inTurn(async () => {
        await store.save(conversation);
        await showSummaries();
      }),

    /** Keeps an answer's words so far, without writing the whole conversation. */
    keepOpenAnswer: (id, answer) => store.setSetting(openAnswerKey(id), answer),
  };
  return conversations;
}

/** The title that a conversation has, or gets by its first question. */
export function titled(conversation, question) {
  return conversation.title ? conversation : { ...conversation, title: titleFrom(question) };
}

/** The page was left in the middle of an answer: its words are the last that were kept. */
function withOpenAnswer(conversation, answer) {
  const message = conversation.messages[answer.id];
  if (!message || message.finishReason) return conversation;
  const messages = { ...conversation.messages, [answer.id]: { ...message, ...answer, finishReason: "left" } };
  return { ...conversation, messages };
}
