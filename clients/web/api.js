/**
 * The daemon's HTTP API as functions.
 *
 * Knows nothing about pages or conversations. Invariant: it fails with `ApiError` (http.js) alone, or with
 * the AbortError of the caller's own signal.
 */

import { ApiError, HttpClient, parsedEvent } from "./http.js";

/** The daemon sends a comment every 15 s where it has nothing else to say. */
const IDLE_TIMEOUT_MS = 45_000;
/** It says at once whether it is ready; a machine that is off says nothing, for minutes. */
const READY_TIMEOUT_MS = 10_000;

/**
 * What a stream tells: a chunk in OpenAI's words, or a comment such as "queued 3".
 *
 * @typedef {{ chunk: any } | { comment: string }} ChatEvent
 *
 * @typedef {object} Api
 * @property {(key: string) => void} setKey sends this API key from now on; "" sends none
 * @property {() => Promise<any[]>} models every model of the daemon's machine (docs/models-api.md)
 * @property {(modelId: string) => Promise<any>} props a loaded model's defaults and abilities
 * @property {(modelId: string) => Promise<any>} fit whether it fits into the daemon's memory; takes seconds
 * @property {(modelId: string) => Promise<any>} load begins to load; the events tell how it goes
 * @property {(modelId: string) => Promise<any>} unload
 * @property {(onEvent: (event: any) => void, options?: import("./http.js").RequestOptions) => Promise<void>} modelEvents
 *   ends when the daemon ends it; raises where it cannot be had
 * @property {(text: string, modelId: string) => Promise<{ tokens: number[], count: number, max_model_len: number }>} tokenize
 * @property {() => Promise<"ready" | "loading" | "draining">} ready
 * @property {(body: object, options?: import("./http.js").RequestOptions) => AsyncGenerator<ChatEvent>} chat
 *   the events of a streamed answer; returns after the daemon said that it was all
 */

/**
 * @param {object} options
 * @param {string | URL} options.baseUrl
 * @param {() => void} [options.onUnauthorized]
 * @param {number} [options.idleTimeoutMs] of streams
 * @param {number} [options.readyTimeoutMs]
 * @returns {Api}
 */
export function createApi({
  baseUrl,
  onUnauthorized = () => undefined,
  idleTimeoutMs = IDLE_TIMEOUT_MS,
  readyTimeoutMs = READY_TIMEOUT_MS,
}) {
  const client = new HttpClient({ baseUrl, onUnauthorized, idleTimeoutMs });
  return {
    setKey: (key) => void (client.key = key),
    models: async () => (await client.json("GET", "models")).data,
    props: (modelId) => client.json("GET", `props?model=${encodeURIComponent(modelId)}`),
    fit: (modelId) => client.json("GET", `models/fit?model=${encodeURIComponent(modelId)}`),
    load: (modelId) => client.json("POST", "models/load", { body: { model: modelId } }),
    unload: (modelId) => client.json("POST", "models/unload", { body: { model: modelId } }),
    tokenize: (text, modelId) => client.json("POST", "tokenize", { body: { prompt: text, model: modelId } }),
    async ready() {
      try {
        return (await client.json("GET", "ready", { signal: AbortSignal.timeout(readyTimeoutMs) })).status;
      } catch (error) {
        if (error.phase) return error.phase;
        throw error;
      }
    },
    async modelEvents(onEvent, options = {}) {
      for await (const event of client.events("GET", "models/sse", options)) {
        if ("data" in event) onEvent(parsedEvent(event.data));
      }
    },
    async *chat(body, options = {}) {
      let isWhole = false;
      for await (const event of client.events("POST", "v1/chat/completions", { ...options, body })) {
        if ("comment" in event) yield event;
        // Read on to the end: leaving now would look to the daemon as if the reader had gone away.
        else if (event.data === "[DONE]") isWhole = true;
        else yield { chunk: parsedEvent(event.data) };
      }
      if (!isWhole) throw new ApiError("The answer broke off.", { code: "connection_lost" });
    },
  };
}
