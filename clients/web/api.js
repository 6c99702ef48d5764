/**
 * The daemon's HTTP API as functions.
 *
 * Knows nothing about pages or conversations. Invariant: whatever goes wrong is an `ApiError` that says
 * what, except for an abort that the caller asked for; that stays an AbortError.
 */

import { serverSentEvents } from "./stream.js";

/** The daemon sends a comment every 15 s where it has nothing else to say. */
const IDLE_TIMEOUT_MS = 45_000;

/** A refusal by the daemon (`status` from 400), or no answer at all (`status` 0). */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{ status?: number, code?: string | null, param?: string | null, retryAfterS?: number | null }} [details]
   *   `code` is the daemon's, or "unreachable", or "connection_lost" in the middle of an answer
   */
  constructor(message, { status = 0, code = null, param = null, retryAfterS = null } = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.param = param;
    this.retryAfterS = retryAfterS;
  }
}

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
 * @property {(onEvent: (event: any) => void, options?: { signal?: AbortSignal, onOpen?: () => void }) => Promise<void>} modelEvents
 *   ends when the daemon ends it; raises where it cannot be had
 * @property {(text: string, modelId: string) => Promise<{ tokens: number[], count: number, max_model_len: number }>} tokenize
 * @property {() => Promise<"ready" | "loading" | "draining">} ready
 * @property {(body: object, options?: { signal?: AbortSignal, onOpen?: () => void }) => AsyncGenerator<ChatEvent>} chat
 *   the events of a streamed answer; returns after the daemon said that it was all
 */

/**
 * @param {{ baseUrl: string | URL, onUnauthorized?: () => void, idleTimeoutMs?: number }} options
 * @returns {Api}
 */
export function createApi({ baseUrl, onUnauthorized = () => undefined, idleTimeoutMs = IDLE_TIMEOUT_MS }) {
  let key = "";

  async function request(method, route, { body, signal } = {}) {
    const headers = {};
    if (key) headers.authorization = `Bearer ${key}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    const url = new URL(route, baseUrl);
    let response;
    try {
      response = await fetch(url, { method, headers, signal, cache: "no-store", body: body && JSON.stringify(body) });
    } catch (error) {
      throw networkError(error, "unreachable");
    }
    if (response.ok) return response;
    const refusal = await refusalOf(response);
    if (refusal.code === "invalid_api_key") onUnauthorized();
    throw refusal;
  }

  async function json(method, route, body) {
    const response = await request(method, route, { body });
    return response.json().catch((error) => Promise.reject(networkError(error, "connection_lost")));
  }

  /** Events of one response; a silence longer than keep-alives allow counts as a lost connection. */
  async function* events(method, route, { body, signal, onOpen = () => undefined }) {
    const silence = new AbortController();
    const signals = signal ? [signal, silence.signal] : [silence.signal];
    let timer;
    try {
      const response = await request(method, route, { body, signal: AbortSignal.any(signals) });
      onOpen();
      const lost = () => silence.abort(new ApiError("The daemon went silent.", { code: "connection_lost" }));
      timer = setTimeout(lost, idleTimeoutMs);
      for await (const event of serverSentEvents(response.body)) {
        clearTimeout(timer);
        timer = setTimeout(lost, idleTimeoutMs);
        yield event;
      }
    } catch (error) {
      throw networkError(error, "connection_lost");
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    setKey(newKey) {
      key = newKey;
    },
    models: async () => (await json("GET", "models")).data,
    props: (modelId) => json("GET", `props?model=${encodeURIComponent(modelId)}`),
    fit: (modelId) => json("GET", `models/fit?model=${encodeURIComponent(modelId)}`),
    load: (modelId) => json("POST", "models/load", { model: modelId }),
    unload: (modelId) => json("POST", "models/unload", { model: modelId }),
    tokenize: (text, modelId) => json("POST", "tokenize", { prompt: text, model: modelId }),
    async ready() {
      try {
        return (await json("GET", "ready")).status;
      } catch (error) {
        if (error.phase) return error.phase;
        throw error;
      }
    },
    async modelEvents(onEvent, options = {}) {
      for await (const event of events("GET", "models/sse", options)) {
        if ("data" in event) onEvent(parsed(event.data));
      }
    },
    async *chat(body, options = {}) {
      let isWhole = false;
      for await (const event of events("POST", "v1/chat/completions", { ...options, body })) {
        if ("comment" in event) yield event;
        // Read on to the end: leaving now would look to the daemon as if the reader had gone away.
        else if (event.data === "[DONE]") isWhole = true;
        else yield { chunk: parsed(event.data) };
      }
      if (!isWhole) throw new ApiError("The answer broke off.", { code: "connection_lost" });
    },
  };
}

/** An event's object; the error that an event tells of is raised. */
function parsed(data) {
  let value;
  try {
    value = JSON.parse(data);
  } catch (error) {
    throw networkError(error, "connection_lost");
  }
  if (value.error && !value.event) throw new ApiError(value.error.message, value.error);
  return value;
}

/** @returns {Promise<ApiError>} */
async function refusalOf(response) {
  const body = await response.json().catch(() => null);
  const error = body?.error ?? {};
  const refusal = new ApiError(error.message ?? `${response.status} ${response.statusText}`.trim(), {
    status: response.status,
    code: error.code ?? null,
    param: error.param ?? null,
    retryAfterS: Number(response.headers.get("retry-after")) || null,
  });
  // /ready says 503 with the phase instead of an error.
  refusal.phase = body?.status ?? null;
  return refusal;
}

/** What a broken fetch or body means; what is understood already, and the caller's own abort, stay. */
function networkError(error, code) {
  if (error instanceof ApiError || error.name === "AbortError") return error;
  return new ApiError(error.message, { code });
}
