/**
 * Requests to the daemon: JSON in and out, event streams, and what goes wrong with them.
 *
 * Knows nothing about routes. Invariant: whatever goes wrong is an `ApiError` that says what, except for an
 * abort that the caller asked for; that stays an AbortError.
 */

import { jsonBody } from "./json_body.js";
import { serverSentEvents } from "./stream.js";

/** A refusal by the daemon (`status` from 400), or no answer at all (`status` 0). */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {object} [details]
   * @param {number} [details.status]
   * @param {string | null} [details.code] the daemon's, or "unreachable", or "connection_lost" in mid-answer
   * @param {string | null} [details.param] the field that is wrong
   * @param {number | null} [details.retryAfterS]
   * @param {string | null} [details.phase] what /ready says instead of an error
   */
  constructor(message, { status = 0, code = null, param = null, retryAfterS = null, phase = null } = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.param = param;
    this.retryAfterS = retryAfterS;
    this.phase = phase;
  }
}

/**
 * @typedef {object} RequestOptions
 * @property {object} [body] sent as JSON
 * @property {AbortSignal} [signal]
 * @property {() => void} [onOpen] told when an event stream begins
 */

export class HttpClient {
  #baseUrl;
  #onUnauthorized;
  #idleTimeoutMs;

  /** The API key that is sent; "" is none. */
  key = "";

  /**
   * @param {object} options
   * @param {string | URL} options.baseUrl
   * @param {() => void} options.onUnauthorized told when the daemon wants a key, or another one
   * @param {number} options.idleTimeoutMs a stream that is silent for longer is lost
   */
  constructor({ baseUrl, onUnauthorized, idleTimeoutMs }) {
    this.#baseUrl = baseUrl;
    this.#onUnauthorized = onUnauthorized;
    this.#idleTimeoutMs = idleTimeoutMs;
  }

  /** @param {string} method @param {string} route @param {RequestOptions} [options] @returns {Promise<any>} */
  async json(method, route, options = {}) {
    const response = await this.#request(method, route, options);
    return response.json().catch((error) => Promise.reject(networkError(error, "connection_lost")));
  }

  /**
   * The events of one response, as they come.
   *
   * @param {string} method
   * @param {string} route
   * @param {RequestOptions} options
   * @returns {AsyncGenerator<import("./stream.js").ServerSentEvent>}
   */
  async *events(method, route, { body, signal, onOpen = () => undefined }) {
    const silence = new AbortController();
    const lost = () => silence.abort(new ApiError("The daemon went silent.", { code: "connection_lost" }));
    const signals = signal ? [signal, silence.signal] : [silence.signal];
    let timer;
    try {
      // No limit before the headers: they come when the model is loaded.
      const response = await this.#request(method, route, { body, signal: AbortSignal.any(signals) });
      onOpen();
      timer = setTimeout(lost, this.#idleTimeoutMs);
      for await (const event of serverSentEvents(response.body)) {
        clearTimeout(timer);
        timer = setTimeout(lost, this.#idleTimeoutMs);
        yield event;
      }
    } catch (error) {
      throw networkError(error, "connection_lost");
    } finally {
      clearTimeout(timer);
    }
  }

  async #request(method, route, { body, signal }) {
    const headers = {};
    if (this.key) headers.authorization = `Bearer ${this.key}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    const options = { method, headers, signal, cache: "no-store", body: body && (await jsonBody(body)) };
    const response = await fetch(new URL(route, this.#baseUrl), options).catch((error) =>
      Promise.reject(networkError(error, "unreachable")),
    );
    if (response.ok) return response;
    const refusal = await refusalOf(response);
    if (refusal.code === "invalid_api_key") this.#onUnauthorized();
    throw refusal;
  }
}

/**
 * An event's object; the error that an event tells of is raised.
 *
 * @param {string} data
 * @returns {any}
 */
export function parsedEvent(data) {
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
  return new ApiError(error.message ?? `${response.status} ${response.statusText}`.trim(), {
    status: response.status,
    code: error.code ?? null,
    param: error.param ?? null,
    retryAfterS: Number(response.headers.get("retry-after")) || null,
    phase: body?.status ?? null,
  });
}

/** What a broken fetch or body means; what is understood already, and the caller's own abort, stay. */
function networkError(error, code) {
  if (error instanceof ApiError || error.name === "AbortError") return error;
  return new ApiError(error.message, { code });
}
