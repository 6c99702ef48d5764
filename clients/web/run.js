/**
 * One answer while it is being written: its words so far, how fast they come, what it waits for.
 *
 * Knows nothing about requests or pages. Invariant: after `outcome` nothing is told or kept any more.
 */

/** How often readers are told: often enough to look steady, seldom enough to cost little. */
const TELL_EVERY_MS = 33;
const KEEP_EVERY_MS = 500;
/** What came within less is how the network cut it, not how fast the model writes. */
const MIN_SPAN_S = 0.1;

/**
 * @typedef {object} Streaming
 * @property {string} conversationId
 * @property {string} messageId
 * @property {string} text the answer so far
 * @property {string} reasoning the thoughts so far
 * @property {number} startedAt milliseconds since 1970
 * @property {number} numTokens
 * @property {number | null} ttftS
 * @property {number | null} tokensPerS
 * @property {number | null} queuePosition 1 is the next
 * @property {"daemon" | "loading" | "room" | "turn" | null} waitingFor what keeps it from being asked again
 */

export class Run {
  #options;
  #abortion = new AbortController();
  #startedAt = Date.now();
  #startedMs;
  #text;
  #reasoning;
  #queuePosition = null;
  #waitingFor = null;
  #numTokens = 0;
  #firstMs = null;
  #lastMs = null;
  #tellTimer = null;
  #keepTimer = null;

  /**
   * @param {object} options
   * @param {string} options.conversationId
   * @param {import("./conversation.js").Message} options.message what there is of the answer
   * @param {() => void} options.onChange
   * @param {(conversationId: string, answer: object) => Promise<void>} options.keep
   * @param {() => number} [options.clockMs]
   */
  constructor(options) {
    this.#options = { clockMs: () => performance.now(), ...options };
    this.#text = options.message.content;
    this.#reasoning = options.message.reasoning ?? "";
    this.begin();
  }

  get conversationId() {
    return this.#options.conversationId;
  }

  get messageId() {
    return this.#options.message.id;
  }

  /** Aborted when the reader has given up. */
  get signal() {
    return this.#abortion.signal;
  }

  /** Characters so far. */
  get length() {
    return this.#text.length + this.#reasoning.length;
  }

  /** What the message holds of it. */
  get words() {
    return { content: this.#text, ...(this.#reasoning ? { reasoning: this.#reasoning } : {}) };
  }

  /** @returns {Streaming} */
  get status() {
    return {
      conversationId: this.conversationId,
      messageId: this.messageId,
      text: this.#text,
      reasoning: this.#reasoning,
      startedAt: this.#startedAt,
      numTokens: this.#numTokens,
      ttftS: this.#ttftS(),
      tokensPerS: this.#tokensPerS(),
      queuePosition: this.#queuePosition,
      waitingFor: this.#waitingFor,
    };
  }

  abort() {
    this.#abortion.abort();
  }

  /** An attempt begins: the time to the first token is not that of waiting for a daemon. */
  begin() {
    if (this.#firstMs === null) this.#startedMs = this.#options.clockMs();
    this.#waitingFor = null;
  }

  /** @param {import("./answer.js").Progress} progress */
  add({ text = "", reasoning = "", queuePosition = null }) {
    this.#queuePosition = queuePosition;
    if (text || reasoning) {
      this.#text += text;
      this.#reasoning += reasoning;
      this.#lastMs = this.#options.clockMs();
      this.#firstMs ??= this.#lastMs;
      this.#numTokens += 1;
      this.#keepSoon();
    }
    this.#tellSoon();
  }

  /**
   * Waits until `subscribe` says that it is time, without it `delayS`, at most until the reader gives up.
   *
   * @param {{ for: Streaming["waitingFor"], delayS: number }} wait
   * @param {((onReady: () => void) => () => void) | null} subscribe
   * @returns {Promise<void>}
   */
  pause({ for: reason, delayS }, subscribe) {
    this.#waitingFor = reason;
    this.#queuePosition = null;
    this.#tellSoon();
    return new Promise((resolve) => {
      const over = () => {
        clearTimeout(timer);
        unsubscribe?.();
        this.signal.removeEventListener("abort", over);
        resolve();
      };
      const timer = subscribe ? undefined : setTimeout(over, delayS * 1000);
      const unsubscribe = subscribe?.(over);
      this.signal.addEventListener("abort", over);
    });
  }

  /**
   * What the message holds in the end.
   *
   * @param {{ finishReason: string, usage?: any, timings?: any }} end
   */
  outcome({ finishReason, usage, timings }) {
    clearTimeout(this.#tellTimer);
    clearTimeout(this.#keepTimer);
    const before = this.#options.message.stats ?? {};
    const stats = {
      numTokens: (before.numTokens ?? 0) + (usage?.completion_tokens ?? this.#numTokens),
      numPromptTokens: usage?.prompt_tokens ?? before.numPromptTokens,
      ttftS: before.ttftS ?? this.#ttftS() ?? undefined,
      tokensPerS: timings?.tokens_per_second ?? this.#tokensPerS() ?? before.tokensPerS,
    };
    return { ...this.words, finishReason, stats };
  }

  #ttftS() {
    return this.#firstMs === null ? null : (this.#firstMs - this.#startedMs) / 1000;
  }

  #tokensPerS() {
    const spanS = (this.#lastMs - this.#firstMs) / 1000;
    return spanS >= MIN_SPAN_S ? (this.#numTokens - 1) / spanS : null;
  }

  #tellSoon() {
    this.#tellTimer ??= setTimeout(() => {
      this.#tellTimer = null;
      this.#options.onChange();
    }, TELL_EVERY_MS);
  }

  #keepSoon() {
    this.#keepTimer ??= setTimeout(() => {
      this.#keepTimer = null;
      void this.#options.keep(this.conversationId, { id: this.messageId, ...this.words });
    }, KEEP_EVERY_MS);
  }
}
