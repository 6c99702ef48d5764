/**
 * What a reader does in the open conversation: asks, stops, asks again, continues, edits, changes branches.
 *
 * Knows nothing about pages or how answers are written. Invariant: a conversation has at most one answer
 * that is being written, and its branch does not change meanwhile.
 */

import { append, edit, selectBranch, updateMessage, withShorterMemory } from "./conversation.js";
import { titled } from "./conversations.js";
import { AnswerWriter } from "./writer.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */

/**
 * @param {ConstructorParameters<typeof AnswerWriter>[0]} app
 */
export function createChat(app) {
  const { state, conversations } = app;
  const writer = new AnswerWriter(app);
  const { answer, rewrite } = createAsking(app, writer);
  const open = () => state.get().conversation;

  return {
    /** @param {string} text @returns {boolean} whether it was sent */
    send(text) {
      const content = text.normalize("NFC");
      const { modelId } = state.get();
      return content.trim() !== "" && answer((conversation) => withQuestion({ ...conversation, modelId }, content));
    },

    /** Ends the answer that is being written; its words stay. */
    stop: () => void writer.stop(open().id),

    /** Another answer beside this one. @param {string} id */
    regenerate: (id) => answer((current) => withAnswer(current, current.messages[id].parentId, state.get().modelId)),

    /** Goes on inside of an answer, or tries one that failed again. @param {string} id */
    continueAnswer: (id) => rewrite(id),

    /** Has the model leave out the older half, and goes on with the answer. @param {string} id */
    forgetOldest: (id) => rewrite(id, (conversation) => withShorterMemory(conversation) ?? conversation),

    /** Another wording of a question, which is answered, or of an answer. @param {string} id @param {string} text */
    edit: (id, text) => editMessage({ state, conversations, answer }, id, text.normalize("NFC")),

    /** Opens another branch. @param {string} id a sibling of a message that is shown */
    select(id) {
      const conversation = open();
      if (!writer.isWriting(conversation.id)) void conversations.update(conversation.id, (now) => selectBranch(now, id));
    },

    /** @param {string} id of a conversation @returns {Promise<Conversation | null>} what was removed, for `restore` */
    async remove(id) {
      await writer.stop(id);
      return conversations.remove(id);
    },

    async removeAll() {
      await writer.stopAll();
      await conversations.removeAll();
    },
  };
}

/** Changes the open conversation and has an answer written into it; nothing happens while one is. */
function createAsking({ state, conversations }, writer) {
  const open = () => state.get().conversation;

  function answer(change, idOf = (conversation) => conversation.leafId) {
    if (writer.isWriting(open().id)) return false;
    state.set({ editing: null });
    void conversations.update(open().id, change);
    void writer.write(open(), idOf(open()));
    return true;
  }

  function rewrite(id, change = (conversation) => conversation) {
    return answer((conversation) => withoutEnding(change(conversation), id), () => id);
  }

  state.subscribe(["needsKey"], ({ needsKey, conversation }) => {
    const refused = needsKey ? null : writer.takeRefused();
    if (refused?.conversationId === conversation.id) rewrite(refused.messageId);
  });
  return { answer, rewrite };
}

function editMessage({ state, conversations, answer }, id, content) {
  const { conversation, modelId } = state.get();
  const { conversation: edited, message } = edit(conversation, id, content);
  if (message.role === "user") answer(() => withAnswer(edited, message.id, modelId));
  else void conversations.update(conversation.id, () => updateMessage(edited, message.id, { finishReason: "edited" }));
}

/** @returns {Conversation} */
function withQuestion(conversation, content) {
  const { conversation: asked, message } = append(titled(conversation, content), { role: "user", content });
  return withAnswer(asked, message.id, conversation.modelId);
}

/** @returns {Conversation} */
function withAnswer(conversation, parentId, modelId) {
  return append(conversation, { role: "assistant", parentId, modelId }).conversation;
}

/** @returns {Conversation} */
function withoutEnding(conversation, id) {
  return updateMessage(conversation, id, { finishReason: undefined, error: undefined });
}
