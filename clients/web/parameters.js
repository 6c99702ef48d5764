/**
 * The parameters of an answer that a conversation can set for itself.
 *
 * Knows nothing about pages. Ranges are those of docs/api.md. Invariant: what `parseParameter` returns
 * the daemon takes.
 */

const MAX_NUM_STOPS = 4;

/**
 * @typedef {object} Parameter
 * @property {string} name as in the request
 * @property {number} min
 * @property {number} max
 * @property {number} step of the field's arrows
 * @property {boolean} [isWhole]
 */

/** @type {readonly Parameter[]} */
export const PARAMETERS = Object.freeze([
  { name: "temperature", min: 0, max: 2, step: 0.1 },
  { name: "top_p", min: 0.01, max: 1, step: 0.05 },
  { name: "top_k", min: 0, max: 100_000, step: 1, isWhole: true },
  { name: "min_p", min: 0, max: 1, step: 0.01 },
  { name: "repetition_penalty", min: 0.01, max: 100, step: 0.05 },
  { name: "max_tokens", min: 1, max: 10_000_000, step: 1, isWhole: true },
  { name: "seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, isWhole: true },
]);

/**
 * @param {Parameter} parameter
 * @param {string} text as typed; "" leaves it to the model
 * @returns {{ value: number | undefined } | { problem: "range" | "whole" | "number" }}
 */
export function parseParameter({ min, max, isWhole }, text) {
  if (text.trim() === "") return { value: undefined };
  const value = Number(text);
  if (!Number.isFinite(value)) return { problem: "number" };
  if (isWhole && !Number.isInteger(value)) return { problem: "whole" };
  return value >= min && value <= max ? { value } : { problem: "range" };
}

/**
 * @param {string} text one stop string a line
 * @returns {string[] | undefined} composed, as models write them; undefined for none
 */
export function parseStops(text) {
  const stops = text.normalize("NFC").split("\n").filter((line) => line.trim() !== "");
  return stops.length > 0 ? [...new Set(stops)].slice(0, MAX_NUM_STOPS) : undefined;
}

/**
 * @param {Record<string, any>} parameters
 * @param {string} name
 * @param {any} value undefined takes it away
 * @returns {Record<string, any>}
 */
export function withParameter(parameters, name, value) {
  const { [name]: _, ...rest } = parameters;
  return value === undefined ? rest : { ...rest, [name]: value };
}
