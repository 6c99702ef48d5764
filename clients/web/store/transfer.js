/**
 * Conversations as a file, and files as conversations (docs/web.md describes the form).
 *
 * Knows nothing about where conversations are kept. Invariant: what is read is whole and sound, a tree
 * with an open branch, or nothing is read and InvalidExport says why.
 */
import { fromOpenWebui, isOpenWebui } from "./open_webui.js";

const FORMAT = "ondol.conversations";
const VERSION = 1;

const ROLES = new Set(["user", "assistant"]);

/** @typedef {import("../conversation.js").Conversation} Conversation */
/** @typedef {"unknownFormat" | "newerVersion" | "broken"} Reason */

/** A file that cannot be read; `place` is where in it, for people who made it by hand. */
export class InvalidExport extends Error {
  /** @param {Reason} reason @param {string} [place] */
  constructor(reason, place = "") {
    super(`${reason} ${place}`.trim());
    this.name = "InvalidExport";
    this.reason = reason;
    this.place = place;
  }
}

/**
 * @param {Conversation[]} conversations
 * @param {Date} now
 * @returns {object} a JSON value
 */
export function writeExport(conversations, now) {
  return { format: FORMAT, version: VERSION, exportedAt: now.toISOString(), conversations };
}

/**
 * @param {unknown} json
 * @param {() => string} newId for conversations and messages that come without a usable id
 * @returns {Conversation[]} raises InvalidExport
 */
export function readExport(json, newId) {
  if (isOpenWebui(json)) return json.map((entry, index) => sound(fromOpenWebui(entry), `[${index}]`, newId));
  if (!isObject(json) || json.format !== FORMAT || !Array.isArray(json.conversations)) {
    throw new InvalidExport("unknownFormat");
  }
  if (!(json.version <= VERSION)) throw new InvalidExport("newerVersion");
  return json.conversations.map((entry, index) => sound(entry, `conversations[${index}]`, newId));
}

/** @returns {Conversation} with every field of the right type; raises InvalidExport */
function sound(entry, place, newId) {
  if (!isObject(entry) || !isObject(entry.messages)) throw new InvalidExport("broken", place);
  const messages = soundMessages(entry.messages, `${place}.messages`);
  const now = Date.now();
  return {
    id: isId(entry.id) ? entry.id : newId(),
    title: text(entry.title),
    createdAt: time(entry.createdAt, now),
    updatedAt: time(entry.updatedAt, now),
    isPinned: entry.isPinned === true,
    modelId: typeof entry.modelId === "string" ? entry.modelId : null,
    system: text(entry.system),
    parameters: soundParameters(entry.parameters),
    messages: Object.fromEntries(messages),
    leafId: messages.has(entry.leafId) ? entry.leafId : newest(messages),
    firstReadId: messages.has(entry.firstReadId) ? entry.firstReadId : null,
  };
}

/** @returns {Map<string, any>} */
function soundMessages(entries, place) {
  const messages = new Map();
  for (const [id, entry] of Object.entries(entries)) messages.set(id, soundMessage(id, entry, `${place}.${id}`));
  for (const id of messages.keys()) {
    if (!reachesRoot(messages, id)) throw new InvalidExport("broken", `${place}.${id}.parentId`);
  }
  return messages;
}

function soundMessage(id, entry, place) {
  const isSound = isObject(entry) && isId(id) && ROLES.has(entry.role) && typeof entry.content === "string";
  if (!isSound || (entry.parentId !== null && !isId(entry.parentId))) throw new InvalidExport("broken", place);
  const optional = {
    reasoning: typeof entry.reasoning === "string" && entry.reasoning,
    modelId: typeof entry.modelId === "string" && entry.modelId,
    finishReason: typeof entry.finishReason === "string" && entry.finishReason,
    stats: isObject(entry.stats) && numbersOf(entry.stats),
  };
  return {
    id,
    parentId: entry.parentId,
    role: entry.role,
    content: entry.content,
    createdAt: time(entry.createdAt, 0),
    ...Object.fromEntries(Object.entries(optional).filter(([, value]) => value)),
  };
}

function reachesRoot(messages, id) {
  const seen = new Set();
  for (let next = id; next !== null; next = messages.get(next).parentId) {
    if (seen.has(next) || !messages.has(next)) return false;
    seen.add(next);
  }
  return true;
}

/** The end of the branch that was written last. */
function newest(messages) {
  const parents = new Set([...messages.values()].map((message) => message.parentId));
  const leaves = [...messages.values()].filter((message) => !parents.has(message.id));
  return leaves.reduce((last, leaf) => (last && last.createdAt > leaf.createdAt ? last : leaf), null)?.id ?? null;
}

/** Numbers, and stop strings; whatever else a file says is no parameter of ours. */
function soundParameters(value) {
  if (!isObject(value)) return {};
  const isStops = (stop) => Array.isArray(stop) && stop.every((item) => typeof item === "string");
  return { ...numbersOf(value), ...(isStops(value.stop) ? { stop: value.stop } : {}) };
}

function numbersOf(value) {
  return Object.fromEntries(Object.entries(value).filter(([, number]) => Number.isFinite(number)));
}

/** Names that every object answers to would be found where nothing was put. */
function isId(value) {
  return typeof value === "string" && /^[\w-]{1,64}$/.test(value) && !(value in Object.prototype);
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value) {
  return typeof value === "string" ? value : "";
}

function time(value, otherwise) {
  return Number.isFinite(value) ? value : otherwise;
}
