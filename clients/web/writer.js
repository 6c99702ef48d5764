/**
 * Writes answers: asks the daemon, waits for it as long as that helps, and puts what came into its message.
 *
 * Knows nothing about pages. Invariant: what was received is never lost; an answer is in the state while it
 * is written, in the store every half second, and in its conversation when it ends, however it ends.
 */

import { requestMessages, updateMessage } from "./conversation.js";
import { answerRequest, readAnswer, waitAfter } from "./answer.js";
import { Run } from "./run.js";
import { nextTask } from "./tasks.js";

/** Without a single new word in so many attempts, a connection that breaks is given up. */
const MAX_FRUITLESS_ATTEMPTS = 5;

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {{ conversationId: string, messageId: string }} Refused */

export class AnswerWriter {
  #state;
  #api;
  #conversations;
  #connection;
  /** @type {Map<string, { run: Run, done: Promise<void> }>} by conversation */
  #runs = new Map();
  /** @type {Refused | null} */
  #refused = null;

  /**
   * @param {object} app
   * @param {import("./state.js").State<any>} app.state
   * @param {import("./api.js").Api} app.api
   * @param {ReturnType<typeof import("./conversations.js").createConversations>} app.conversations
   * @param {{ check(): void }} app.connection
   */
  constructor({ state, api, conversations, connection }) {
    this.#state = state;
    this.#api = api;
    this.#conversations = conversations;
    this.#connection = connection;
    state.subscribe(["conversation"], () => this.#show());
  }

  /** @param {string} conversationId */
  isWriting(conversationId) {
    return this.#runs.has(conversationId);
  }

  /**
   * Ends the answer that is being written; its words stay.
   *
   * @param {string} conversationId
   * @returns {Promise<void>} when they are stored
   */
  async stop(conversationId) {
    const open = this.#runs.get(conversationId);
    open?.run.abort();
    await open?.done;
  }

  /** @returns {Promise<void>} when the words of all answers are stored */
  async stopAll() {
    await Promise.all([...this.#runs.keys()].map((conversationId) => this.stop(conversationId)));
  }

  /** The last answer that was refused for want of a key, once. @returns {Refused | null} */
  takeRefused() {
    const refused = this.#refused;
    this.#refused = null;
    return refused;
  }

  /**
   * Writes an answer to its end. What it is asked for is settled now: later changes do not reach it.
   *
   * @param {Conversation} conversation
   * @param {string} messageId
   * @returns {Promise<void>} when it is stored
   */
  write(conversation, messageId) {
    const { id, messages } = conversation;
    const run = new Run({
      conversationId: id,
      message: messages[messageId],
      onChange: () => this.#show(),
      keep: this.#conversations.keepOpenAnswer,
    });
    const done = this.#writeTo(run, conversation);
    this.#runs.set(id, { run, done });
    this.#show();
    return done;
  }

  async #writeTo(run, conversation) {
    const { conversationId, messageId } = run;
    // The question is painted before a long conversation is made into a request.
    await nextTask();
    const modelId = await this.#modelId(run, conversation.messages[messageId]);
    const outcome = await this.#outcomeOf(run, () => requestOf(conversation, run, modelId)).finally(() => {
      this.#runs.delete(conversationId);
    });
    const saved = this.#conversations.update(conversationId, (current) =>
      current.messages[messageId] ? updateMessage(current, messageId, { ...outcome, modelId }) : current,
    );
    this.#show();
    await saved;
    await this.#conversations.keepOpenAnswer(conversationId, null);
  }

  #show() {
    const { conversation } = this.#state.get();
    this.#state.set({ streaming: this.#runs.get(conversation?.id)?.run.status ?? null });
  }

  /** A page that was opened a moment ago does not know its daemon's models yet. */
  async #modelId(run, message) {
    const isKnown = () => this.#state.get().modelId !== null || this.#state.get().models.length > 0;
    if (!isKnown()) {
      await run.pause({ for: "loading", delayS: 0 }, (onReady) =>
        this.#state.subscribe(["models", "modelId"], () => {
          if (isKnown()) onReady();
        }),
      );
    }
    return this.#state.get().modelId ?? message.modelId;
  }

  /** @returns {Promise<object>} what the message holds in the end */
  async #outcomeOf(run, request) {
    for (let numFruitless = 0; ; ) {
      const lengthBefore = run.length;
      run.begin();
      try {
        const events = this.#api.chat(request(), { signal: run.signal });
        return run.outcome(await readAnswer(events, (progress) => run.add(progress)));
      } catch (error) {
        if (error.name !== "ApiError" && !run.signal.aborted) throw error;
        numFruitless = run.length > lengthBefore ? 0 : numFruitless + 1;
        const isHopeless = error.code === "connection_lost" && numFruitless >= MAX_FRUITLESS_ATTEMPTS;
        const wait = isHopeless || run.signal.aborted ? null : waitAfter(error);
        if (wait) await run.pause(wait, this.#readiness(wait));
        if (run.signal.aborted) return run.outcome({ finishReason: "stopped" });
        if (!wait) return this.#failure(run, error);
      }
    }
  }

  #failure(run, { code, status, message, retryAfterS }) {
    if (code === "connection_lost") return run.outcome({ finishReason: "lost" });
    if (code === "invalid_api_key") {
      this.#refused = { conversationId: run.conversationId, messageId: run.messageId };
    }
    return { ...run.outcome({ finishReason: "error" }), error: { code, status, message, retryAfterS } };
  }

  /** What tells that the daemon takes requests again; null where only time does. */
  #readiness(wait) {
    if (wait.for !== "daemon") return null;
    this.#state.set({ connection: "gone" });
    this.#connection.check();
    return (onReady) =>
      this.#state.subscribe(["connection"], ({ connection }) => {
        if (connection === "ready") onReady();
      });
  }
}

/** The request for what is missing of an answer. */
function requestOf(conversation, run, modelId) {
  const current = updateMessage(conversation, run.messageId, run.words);
  return answerRequest({
    modelId,
    messages: requestMessages(current, run.messageId),
    parameters: conversation.parameters,
  });
}
