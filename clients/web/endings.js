/**
 * Why an answer ended, and what a reader can do about it.
 *
 * Knows nothing about how it is shown; words are keys of strings/. Invariant: every way in which an answer
 * can end has words, and those that leave it unfinished have a way on.
 */

import { withShorterMemory } from "./conversation.js";

/**
 * @typedef {"continue" | "retry" | "forget" | "regenerate" | "newChat" | "key"} Remedy
 *
 * @typedef {object} Ending
 * @property {"whole" | "cut" | "failed"} kind
 * @property {string} key what happened
 * @property {Record<string, string | number>} [params]
 * @property {Remedy[]} remedies what helps, the best first
 */

const BY_REASON = {
  stop: { kind: "whole", key: "end.stop", remedies: [] },
  edited: { kind: "whole", key: "end.edited", remedies: [] },
  tool_calls: { kind: "cut", key: "end.tool_calls", remedies: ["regenerate"] },
  content_filter: { kind: "cut", key: "end.content_filter", remedies: ["regenerate"] },
  stopped: { kind: "cut", key: "end.stopped", remedies: ["continue"] },
  lost: { kind: "cut", key: "end.lost", remedies: ["continue"] },
  left: { kind: "cut", key: "end.left", remedies: ["continue"] },
};

/** Refusals and failures by the daemon's code. */
const BY_CODE = {
  invalid_api_key: { key: "error.invalid_api_key", remedies: ["key", "retry"] },
  context_length_exceeded: { key: "error.context_length_exceeded", remedies: ["forget", "newChat"] },
  model_not_found: { key: "error.model_not_found", remedies: ["retry"] },
  model_does_not_fit: { key: "error.model_does_not_fit", remedies: ["retry"] },
  model_refused: { key: "error.model_refused", remedies: ["retry"] },
  no_chat_template: { key: "error.no_chat_template", remedies: ["retry"] },
  rate_limit_exceeded: { key: "error.rate_limit_exceeded", remedies: ["retry"] },
  load_stopped: { key: "error.load_stopped", remedies: ["retry"] },
  model_unloading: { key: "error.model_unloading", remedies: ["retry"] },
  source_unreachable: { key: "error.source_unreachable", remedies: ["retry"] },
  device_unusable: { key: "error.device_unusable", remedies: ["retry"] },
  engine_failed: { key: "error.engine_failed", remedies: ["continue"] },
  internal_error: { key: "error.internal_error", remedies: ["continue"] },
  request_too_large: { key: "error.request_too_large", remedies: ["forget", "newChat"] },
  origin_not_allowed: { key: "error.origin_not_allowed", remedies: [] },
  host_not_allowed: { key: "error.origin_not_allowed", remedies: [] },
};

/**
 * @param {import("./conversation.js").Message} message an answer that nobody is writing at the moment
 * @param {import("./conversation.js").Conversation} conversation
 * @returns {Ending}
 */
export function endingOf(message, conversation) {
  if (message.finishReason === "error") return failure(message, conversation);
  if (message.finishReason === "length") return length(message, conversation);
  const ending = BY_REASON[message.finishReason ?? "left"] ?? BY_REASON.stop;
  return { ...ending, remedies: ending.remedies.map((remedy) => worded(remedy, message)) };
}

function failure(message, conversation) {
  const { code, message: said, retryAfterS } = message.error;
  const known = Object.hasOwn(BY_CODE, String(code)) ? BY_CODE[code] : { key: "error.other", remedies: ["retry"] };
  const remedies = known.remedies
    .filter((remedy) => remedy !== "forget" || withShorterMemory(conversation) !== null)
    .map((remedy) => worded(remedy, message));
  const params = { model: message.modelId ?? "", said, seconds: retryAfterS ?? 60 };
  return { kind: "failed", key: known.key, params, remedies };
}

/** "length" is three things: the reader's own limit, a deadline, or the end of the model's context. */
function length(message, conversation) {
  const { max_tokens: maxTokens, deadline_s: deadlineS } = conversation.parameters;
  if (maxTokens && (message.stats?.numTokens ?? 0) >= maxTokens) {
    return { kind: "cut", key: "end.maxTokens", params: { maxTokens }, remedies: ["continue"] };
  }
  if (deadlineS) return { kind: "cut", key: "end.deadline", params: { deadlineS }, remedies: ["continue"] };
  const remedies = withShorterMemory(conversation) ? ["forget", "newChat"] : ["newChat"];
  return { kind: "cut", key: "end.contextFull", remedies };
}

/** There is nothing to continue where no word has come. */
function worded(remedy, message) {
  const hasWords = Boolean(message.content || message.reasoning);
  if (remedy === "continue" && !hasWords) return "retry";
  return remedy === "retry" && hasWords ? "continue" : remedy;
}
