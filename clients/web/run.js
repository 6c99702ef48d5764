/**
 * One answer while it is being written: its words so far, how fast they come, what it waits for.
 *
 * Knows nothing about requests or pages. Invariant: after `outcome` nothing is told or kept any more.
 */

/** How often readers are told: often enough to look steady, seldom enough to cost little. */
const TELL_EVERY_MS = 33;
const KEEP_EVERY_MS = 500;

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
 * @property {number | null} queuePosition
 * @property {"daemon" | "loading" | "room" | "turn" | null} waitingFor what keeps it from being asked again
 */

/**
 * @param {object} options
 * @param {string} options.conversationId
 * @param {import("./conversation.js").Message} options.message what there is of the answer
 * @param {() => void} options.onChange
 * @param {(conversationId: string, answer: object) => Promise<void>} options.keep
 * @param {() => number} [options.clockMs]
 */
export function createRun({ conversationId, message, onChange, keep, clockMs = () => performance.now() }) {
  const abortion = new AbortController();
  const startedMs = clockMs();
  const startedAt = Date.now();
  const told = { text: message.content, reasoning: message.reasoning ?? "" };
  const wait = { queuePosition: null, waitingFor: null };
  const tempo = { numTokens: 0, firstMs: null, lastMs: null };
  let tellTimer = null;
  let keepTimer = null;

  const words = () => ({ content: told.text, ...(told.reasoning ? { reasoning: told.reasoning } : {}) });
  const ttftS = () => (tempo.firstMs === null ? null : (tempo.firstMs - startedMs) / 1000);

  function tokensPerS() {
    const spanS = (tempo.lastMs - tempo.firstMs) / 1000;
    return tempo.numTokens > 1 && spanS > 0 ? (tempo.numTokens - 1) / spanS : null;
  }

  function tell() {
    tellTimer ??= setTimeout(() => {
      tellTimer = null;
      onChange();
    }, TELL_EVERY_MS);
  }

  function keepSoon() {
    keepTimer ??= setTimeout(() => {
      keepTimer = null;
      void keep(conversationId, { id: message.id, ...words() });
    }, KEEP_EVERY_MS);
  }

  /** @param {import("./answer.js").Progress} progress */
  function add({ text = "", reasoning = "", queuePosition = null }) {
    wait.queuePosition = queuePosition;
    wait.waitingFor = null;
    if (text || reasoning) {
      told.text += text;
      told.reasoning += reasoning;
      tempo.lastMs = clockMs();
      tempo.firstMs ??= tempo.lastMs;
      tempo.numTokens += 1;
      keepSoon();
    }
    tell();
  }

  /** Waits `delayS`, or until `subscribe` says that it is time, or the reader gives up. */
  function pause({ for: reason, delayS }, subscribe) {
    wait.waitingFor = reason;
    tell();
    return new Promise((resolve) => {
      const over = () => {
        clearTimeout(timer);
        unsubscribe?.();
        abortion.signal.removeEventListener("abort", over);
        resolve();
      };
      const timer = subscribe ? undefined : setTimeout(over, delayS * 1000);
      const unsubscribe = subscribe?.(over);
      abortion.signal.addEventListener("abort", over);
    });
  }

  /** @param {{ finishReason: string, usage?: any, timings?: any }} end */
  function outcome({ finishReason, usage, timings }) {
    clearTimeout(tellTimer);
    clearTimeout(keepTimer);
    const before = message.stats?.numTokens ?? 0;
    const stats = {
      numTokens: before + (usage?.completion_tokens ?? tempo.numTokens),
      numPromptTokens: usage?.prompt_tokens ?? message.stats?.numPromptTokens,
      ttftS: message.stats?.ttftS ?? ttftS() ?? undefined,
      tokensPerS: timings?.tokens_per_second ?? tokensPerS() ?? message.stats?.tokensPerS,
    };
    return { ...words(), finishReason, stats };
  }

  return {
    conversationId,
    messageId: message.id,
    signal: abortion.signal,
    abort: () => abortion.abort(),
    words,
    length: () => told.text.length + told.reasoning.length,
    add,
    pause,
    outcome,
    /** @returns {Streaming} */
    status: () => ({
      conversationId,
      messageId: message.id,
      ...told,
      startedAt,
      numTokens: tempo.numTokens,
      ttftS: ttftS(),
      tokensPerS: tokensPerS(),
      ...wait,
    }),
  };
}
