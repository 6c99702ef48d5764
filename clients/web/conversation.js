/**
 * A conversation as plain data: a tree of messages of which one branch is open.
 *
 * Knows nothing about pages, storage or the network. Invariant: every function leaves its arguments as
 * they are and returns a new conversation; `leafId` is null or names a message, and so does every parent.
 */

import { truncate } from "./graphemes.js";
import { splitThought } from "./thoughts.js";

/**
 * @typedef {object} Stats
 * @property {number} [numTokens] tokens of the answer
 * @property {number} [numPromptTokens] tokens that the model read for it
 * @property {number} [ttftS] seconds until the first token
 * @property {number} [tokensPerS] tokens per second from the first token on
 *
 * @typedef {object} Message
 * @property {string} id
 * @property {string | null} parentId
 * @property {"user" | "assistant"} role
 * @property {string} content
 * @property {string} [reasoning] what the model thought, where the server tells it apart
 * @property {number} createdAt milliseconds since 1970
 * @property {string} [modelId]
 * @property {string} [finishReason] OpenAI's, or "stopped" by the reader, "lost" with the connection, "error"
 * @property {Stats} [stats]
 * @property {{ code: string | null, status: number, message: string, retryAfterS?: number | null }} [error]
 *
 * @typedef {object} Conversation
 * @property {string} id
 * @property {string} title
 * @property {number} createdAt
 * @property {number} updatedAt
 * @property {boolean} isPinned
 * @property {string | null} modelId
 * @property {string} system
 * @property {Record<string, any>} parameters fields of the request that differ from the server's defaults
 * @property {Record<string, Message>} messages
 * @property {string | null} leafId
 * @property {string | null} [firstReadId] the model reads from this message on; null: from the first
 */

const MAX_TITLE_GRAPHEMES = 40;

/** An id nobody else has; works without a secure context, where `crypto.randomUUID` is missing. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {Partial<Conversation>} [fields]
 * @returns {Conversation}
 */
export function createConversation(fields = {}) {
  const now = Date.now();
  return {
    id: newId(),
    title: "",
    createdAt: now,
    updatedAt: now,
    isPinned: false,
    modelId: null,
    system: "",
    parameters: {},
    messages: {},
    leafId: null,
    firstReadId: null,
    ...fields,
  };
}

/**
 * The open branch, from the first message to the leaf.
 *
 * @param {Conversation} conversation
 * @param {string | null} [leafId]
 * @returns {Message[]}
 */
export function path(conversation, leafId = conversation.leafId) {
  const messages = [];
  for (let id = leafId; id !== null; id = conversation.messages[id].parentId) {
    messages.push(conversation.messages[id]);
  }
  return messages.reverse();
}

/**
 * Which messages follow which, oldest first; the key of first messages is null.
 *
 * @param {Conversation} conversation
 * @returns {Map<string | null, Message[]>}
 */
export function childrenByParent(conversation) {
  /** @type {Map<string | null, Message[]>} */
  const children = new Map();
  for (const message of Object.values(conversation.messages)) {
    const list = children.get(message.parentId);
    if (list) list.push(message);
    else children.set(message.parentId, [message]);
  }
  return children;
}

/**
 * The message and its alternatives, oldest first.
 *
 * @param {Conversation} conversation
 * @param {string} id
 * @returns {Message[]}
 */
export function siblings(conversation, id) {
  const { parentId } = conversation.messages[id];
  return Object.values(conversation.messages).filter((message) => message.parentId === parentId);
}

/**
 * Adds a message after `parentId`, by default after the leaf, and opens its branch.
 *
 * @param {Conversation} conversation
 * @param {Partial<Message> & { role: "user" | "assistant" }} fields
 * @returns {{ conversation: Conversation, message: Message }}
 */
export function append(conversation, fields) {
  const message = { id: newId(), parentId: conversation.leafId, content: "", createdAt: Date.now(), ...fields };
  const messages = { ...conversation.messages, [message.id]: message };
  return {
    conversation: { ...conversation, messages, leafId: message.id, updatedAt: message.createdAt },
    message,
  };
}

/**
 * Another wording of a message, beside it. What was measured of the old one does not hold for it.
 *
 * @param {Conversation} conversation
 * @param {string} id
 * @param {string} content
 * @returns {{ conversation: Conversation, message: Message }}
 */
export function edit(conversation, id, content) {
  const { parentId, role, modelId } = conversation.messages[id];
  return append(conversation, { parentId, role, content, ...(modelId ? { modelId } : {}) });
}

/**
 * @param {Conversation} conversation
 * @param {string} id
 * @param {Partial<Message>} patch keys that are undefined in it are removed
 * @returns {Conversation}
 */
export function updateMessage(conversation, id, patch) {
  const entries = Object.entries({ ...conversation.messages[id], ...patch });
  const message = Object.fromEntries(entries.filter(([, value]) => value !== undefined));
  return { ...conversation, messages: { ...conversation.messages, [id]: message } };
}

/**
 * Opens the branch of a message, down to its newest end.
 *
 * @param {Conversation} conversation
 * @param {string} id
 * @returns {Conversation}
 */
export function selectBranch(conversation, id) {
  const children = childrenByParent(conversation);
  let leafId = id;
  for (let next = children.get(leafId); next; next = children.get(leafId)) {
    leafId = next[next.length - 1].id;
  }
  return { ...conversation, leafId };
}

/**
 * The messages of a request whose answer becomes `answerId`. An answer that has words already is the
 * last of them: the model goes on inside of it.
 *
 * @param {Conversation} conversation
 * @param {string} answerId
 * @returns {{ role: string, content: string }[]}
 */
export function requestMessages(conversation, answerId) {
  const branch = path(conversation, answerId);
  const first = branch.findIndex((message) => message.id === conversation.firstReadId);
  const read = branch.slice(Math.max(first, 0)).filter((message) => message.content || message.reasoning);
  const messages = read.map((message) => ({
    role: message.role,
    content: isThoughtOver(message, answerId) ? splitThought(message.content).answer : message.content,
    ...(message.id === answerId && message.reasoning ? { reasoning_content: message.reasoning } : {}),
  }));
  const system = conversation.system.trim();
  return system ? [{ role: "system", content: system }, ...messages] : messages;
}

/** Models are not told again what they thought before earlier answers, as their own templates have it. */
function isThoughtOver(message, answerId) {
  return message.role === "assistant" && message.id !== answerId;
}

/**
 * Leaves out the older half, by length, of what the model reads, up to a question.
 *
 * @param {Conversation} conversation
 * @returns {Conversation | null} null if nothing but the last question is left
 */
export function withShorterMemory(conversation) {
  const branch = path(conversation);
  const first = Math.max(branch.findIndex((message) => message.id === conversation.firstReadId), 0);
  const read = branch.slice(first);
  let surplus = read.reduce((sum, message) => sum + message.content.length, 0) / 2;
  const cut = read.findIndex((message, index) => {
    surplus -= index > 0 ? read[index - 1].content.length : 0;
    return index > 0 && surplus <= 0 && message.role === "user";
  });
  const lastQuestion = read.findLastIndex((message) => message.role === "user");
  const next = cut > 0 ? cut : lastQuestion;
  return next > 0 ? { ...conversation, firstReadId: read[next].id } : null;
}

/**
 * A title out of the first question: its first line, cut between characters as people see them.
 *
 * @param {string} text
 * @returns {string}
 */
export function titleFrom(text) {
  const line = text.split("\n").find((candidate) => candidate.trim()) ?? "";
  const words = line.replace(/\s+/g, " ").replace(/^[#>*\-\s]+/, "");
  return truncate(words.trim(), MAX_TITLE_GRAPHEMES);
}
