/**
 * One attempt at an answer: the stream's chunks made into text, counts and an end.
 *
 * Knows nothing about conversations or what is shown. Invariant: every piece of text is told once, in
 * order, before `readAnswer` returns or raises.
 */

/**
 * @typedef {object} Progress
 * @property {string} [text] what was added to the answer
 * @property {string} [reasoning] what was added to the thoughts before it
 * @property {number} [queuePosition] the place in the daemon's queue; 1 is next
 *
 * @typedef {object} AnswerEnd
 * @property {string} finishReason
 * @property {any} usage OpenAI's counts; null where the server tells none
 * @property {any} timings Ondol's; null where the server tells none
 */

/**
 * @param {AsyncIterable<import("./api.js").ChatEvent>} events
 * @param {(progress: Progress) => void} onProgress
 * @returns {Promise<AnswerEnd>}
 */
export async function readAnswer(events, onProgress) {
  const end = { finishReason: "stop", usage: null, timings: null };
  for await (const event of events) {
    if ("comment" in event) {
      const place = /^queued (\d+)$/.exec(event.comment);
      if (place) onProgress({ queuePosition: Number(place[1]) });
      continue;
    }
    const { choices = [], usage, timings } = event.chunk;
    end.usage = usage ?? end.usage;
    end.timings = timings ?? end.timings;
    for (const choice of choices) {
      const { content, reasoning_content: reasoning } = choice.delta ?? {};
      if (content || reasoning) onProgress({ text: content ?? "", reasoning: reasoning ?? "" });
      end.finishReason = choice.finish_reason ?? end.finishReason;
    }
  }
  return end;
}

/**
 * What to wait for before the same request can succeed; null where waiting does not help.
 *
 * @param {{ code: string | null, status: number, retryAfterS?: number | null }} error
 * @returns {{ for: "daemon" | "loading" | "room" | "turn", delayS: number } | null}
 */
export function waitAfter(error) {
  const delayS = error.retryAfterS ?? 5;
  switch (error.code) {
    case "unreachable":
    case "connection_lost":
    case "shutting_down":
      return { for: "daemon", delayS: 0 };
    case "model_loading":
      return { for: "loading", delayS };
    case "no_room_yet":
      return { for: "room", delayS };
    case "queue_full":
      return { for: "turn", delayS };
    default:
      // A proxy in front of a daemon that is away.
      return error.code === null && [502, 503, 504].includes(error.status) ? { for: "daemon", delayS: 0 } : null;
  }
}

/**
 * The request of an answer.
 *
 * @param {object} options
 * @param {string} options.modelId
 * @param {{ role: string, content: string }[]} options.messages
 * @param {Record<string, any>} options.parameters
 * @returns {object} the body; an assistant's message at the end is continued
 */
export function answerRequest({ modelId, messages, parameters }) {
  const isContinued = messages.at(-1)?.role === "assistant";
  return {
    ...parameters,
    model: modelId,
    messages,
    stream: true,
    stream_options: { include_usage: true, include_timings: true },
    ...(isContinued ? { continue_final_message: true, add_generation_prompt: false } : {}),
  };
}
