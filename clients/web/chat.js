/**
 * What a reader does in a conversation: asks, stops, asks again, continues, edits, changes branches.
 *
 * Knows nothing about pages. Invariant: what was received is never lost; an answer is in the state while
 * it is written, in the store every half second, and in its conversation when it ends, however it ends.
 */

import { append, edit, requestMessages, selectBranch, updateMessage, withShorterMemory } from "./conversation.js";
import { answerRequest, readAnswer, waitAfter } from "./answer.js";
import { titled } from "./conversations.js";
import { createRun } from "./run.js";

/** Without a single new word in so many attempts, waiting and asking again is given up. */
const MAX_FRUITLESS_ATTEMPTS = 5;

/**
 * @param {object} app
 * @param {import("./state.js").State<any>} app.state
 * @param {import("./api.js").Api} app.api
 * @param {ReturnType<typeof import("./conversations.js").createConversations>} app.conversations
 * @param {{ check(): void }} app.connection
 */
export function createChat({ state, api, conversations, connection }) {
  /** @type {Map<string, ReturnType<typeof createRun>>} the answers that are being written, by conversation */
  const runs = new Map();
  /** @type {{ conversationId: string, messageId: string } | null} what waits for an API key */
  let refused = null;

  const show = () => state.set({ streaming: runs.get(state.get().conversation?.id)?.status() ?? null });
  const isBusy = () => runs.has(state.get().conversation.id);
  state.subscribe(["conversation"], show);
  state.subscribe(["needsKey"], ({ needsKey }) => {
    if (needsKey || !refused) return;
    const { conversationId, messageId } = refused;
    refused = null;
    if (state.get().conversation.id === conversationId) void rewrite(messageId);
  });

  /** Changes the open conversation and starts the answer that is its leaf now. */
  async function ask(change) {
    const { id } = state.get().conversation;
    const saved = conversations.update(id, change);
    const { conversation } = state.get();
    void write(conversation, conversation.leafId);
    await saved;
  }

  const withAnswer = (conversation, parentId = conversation.leafId) =>
    append(conversation, { role: "assistant", parentId, modelId: state.get().modelId }).conversation;

  /** Writes an answer to its end, waiting for the daemon as long as that helps. */
  async function write(conversation, messageId) {
    const { id: conversationId, messages } = conversation;
    if (runs.has(conversationId)) return;
    const run = createRun({
      conversationId,
      message: messages[messageId],
      onChange: show,
      keep: conversations.keepOpenAnswer,
    });
    runs.set(conversationId, run);
    show();
    // The question is painted before a long conversation is made into a request.
    await nextTask();
    const outcome = await outcomeOf(run, requestOf(conversation, run));
    runs.delete(conversationId);
    const saved = conversations.update(conversationId, (current) => updateMessage(current, messageId, outcome));
    show();
    await saved;
    await conversations.keepOpenAnswer(conversationId, null);
  }

  /** @returns {Promise<object>} what the message holds in the end */
  async function outcomeOf(run, request) {
    for (let attempts = 1; ; ) {
      const lengthBefore = run.length();
      try {
        const events = api.chat(request(), { signal: run.signal });
        return run.outcome(await readAnswer(events, run.add));
      } catch (error) {
        if (run.signal.aborted) return run.outcome({ finishReason: "stopped" });
        attempts = run.length() > lengthBefore ? 1 : attempts + 1;
        const wait = attempts > MAX_FRUITLESS_ATTEMPTS && error.code === "connection_lost" ? null : waitAfter(error);
        if (!wait) return failure(run, error);
        await run.pause(wait, readiness(wait));
        if (run.signal.aborted) return run.outcome({ finishReason: "stopped" });
      }
    }
  }

  /** The request of a run's next attempt; later changes of the conversation do not reach it. */
  function requestOf(conversation, run) {
    const { modelId } = state.get();
    return () => {
      const current = updateMessage(conversation, run.messageId, run.words());
      return answerRequest({
        modelId: modelId ?? conversation.messages[run.messageId].modelId,
        messages: requestMessages(current, run.messageId),
        parameters: conversation.parameters,
      });
    };
  }

  function failure(run, error) {
    if (error.code === "invalid_api_key") refused = { conversationId: run.conversationId, messageId: run.messageId };
    const { code, status, message, retryAfterS } = error;
    const isLost = code === "connection_lost" || code === "unreachable";
    if (isLost) return run.outcome({ finishReason: "lost" });
    return { ...run.outcome({ finishReason: "error" }), error: { code, status, message, retryAfterS } };
  }

  /** Resolves when the daemon takes requests again; null where only time tells. */
  function readiness(wait) {
    if (wait.for !== "daemon") return null;
    state.set({ connection: "gone" });
    connection.check();
    return (onReady) => state.subscribe(["connection"], ({ connection: phase }) => phase === "ready" && onReady());
  }

  const rewrite = (messageId, change = (conversation) => conversation) => {
    const { id } = state.get().conversation;
    const cleared = { finishReason: undefined, error: undefined };
    const saved = conversations.update(id, (conversation) => updateMessage(change(conversation), messageId, cleared));
    void write(state.get().conversation, messageId);
    return saved;
  };

  return {
    /** Asks; does nothing while an answer is being written. @param {string} text @returns {boolean} whether it was sent */
    send(text) {
      const content = text.normalize("NFC");
      if (content.trim() === "" || isBusy()) return false;
      void ask((conversation) =>
        withAnswer(append(titled({ ...conversation, modelId: state.get().modelId }, content), { role: "user", content }).conversation),
      );
      return true;
    },

    /** Ends the answer that is being written in the open conversation; its words stay. */
    stop() {
      runs.get(state.get().conversation.id)?.abort();
    },

    /** Another answer beside this one. @param {string} id */
    regenerate(id) {
      if (isBusy()) return;
      void ask((conversation) => withAnswer(conversation, conversation.messages[id].parentId));
    },

    /** Goes on inside of an answer, or tries one that failed again. @param {string} id */
    continueAnswer(id) {
      if (!isBusy()) void rewrite(id);
    },

    /** Another wording of a question, which is answered, or of an answer. @param {string} id @param {string} text */
    edit(id, text) {
      if (isBusy()) return;
      const content = text.normalize("NFC");
      const { role } = state.get().conversation.messages[id];
      const { id: conversationId } = state.get().conversation;
      if (role === "user") void ask((conversation) => withAnswer(edit(conversation, id, content).conversation));
      else
        void conversations.update(conversationId, (conversation) => {
          const edited = edit(conversation, id, content);
          return updateMessage(edited.conversation, edited.message.id, { finishReason: "edited" });
        });
    },

    /** Opens another branch. @param {string} id a sibling of a message that is shown */
    select(id) {
      if (!isBusy()) void conversations.update(state.get().conversation.id, (conversation) => selectBranch(conversation, id));
    },

    /** Has the model leave out the older half, and answers again. @param {string} id @returns {boolean} whether anything was left to leave out */
    forgetOldest(id) {
      const isShorter = withShorterMemory(state.get().conversation) !== null;
      if (isShorter && !isBusy()) void rewrite(id, (conversation) => withShorterMemory(conversation) ?? conversation);
      return isShorter;
    },
  };
}

function nextTask() {
  return new Promise((resolve) => setTimeout(resolve));
}
