/**
 * What can be done with conversations beside answering: open, start, name, keep, remove.
 *
 * Knows nothing about the network or how anything looks. Invariant: there always is an open conversation
 * once one was created or opened; an empty one is not kept.
 */

import { createConversation, titleFrom } from "./conversation.js";
import { Shelf } from "./shelf.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {Partial<Pick<Conversation, "system" | "parameters" | "modelId">>} Settings */

/**
 * @param {ConstructorParameters<typeof Shelf>[0]} app
 */
export function createConversations(app) {
  const { state } = app;
  const shelf = new Shelf(app);
  const { refresh, keepOpenAnswer, update } = shelf;
  const create = () => state.set({ conversation: createConversation({ modelId: state.get().modelId }) });
  const configure = (patch) => update(state.get().conversation.id, (conversation) => ({ ...conversation, ...patch }));

  return {
    refresh,
    keepOpenAnswer,
    update,
    /** Shows an empty conversation; it is kept from the first message on. */
    create,

    /** @param {string} id @returns {Promise<boolean>} whether it exists */
    async open(id) {
      const conversation = await shelf.open(id);
      if (hasModel(state, conversation?.modelId)) state.set({ modelId: conversation.modelId });
      return conversation !== null;
    },

    /** @param {string} id @param {string} title */
    rename: (id, title) => update(id, (conversation) => ({ ...conversation, title: title.trim() })),

    /** @param {string} id @param {boolean} isPinned */
    setPinned: (id, isPinned) => update(id, (conversation) => ({ ...conversation, isPinned })),

    /** @param {Settings} patch of the open conversation */
    configure,
    /** @param {string} modelId the model that answers from now on */
    chooseModel(modelId) {
      state.set({ modelId });
      return configure({ modelId });
    },

    /** @param {string} id @returns {Promise<Conversation | null>} what was removed, for `restore` */
    remove(id) {
      if (state.get().conversation.id === id) create();
      return shelf.remove(id);
    },

    async removeAll() {
      create();
      await shelf.removeAll();
    },

    /** @param {Conversation} conversation */
    restore: (conversation) => shelf.save(conversation),
  };
}

function hasModel(state, modelId) {
  return state.get().models.some((model) => model.id === modelId);
}

/** The title that a conversation has, or gets by its first question. */
export function titled(conversation, question) {
  return conversation.title ? conversation : { ...conversation, title: titleFrom(question) };
}
