/**
 * Conversations as Open WebUI exports them: a list of chats, each a tree of messages.
 *
 * Knows nothing about whether they are sound; transfer.js looks. Invariant: branches stay branches.
 */

const MS_PER_S = 1000;
/** Its names of parameters that have other names here. */
const RENAMED = { repeat_penalty: "repetition_penalty" };
const PARAMETERS = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed", "stop"];

/** @param {any} json @returns {json is any[]} */
export function isOpenWebui(json) {
  return Array.isArray(json) && json.length > 0 && json.every((entry) => entry?.chat?.history?.messages);
}

/**
 * @param {any} entry one of the list
 * @returns {any} in the form of this page's own export
 */
export function fromOpenWebui(entry) {
  const { chat } = entry;
  const messages = Object.values(chat.history.messages).map((message) => [message.id, messageOf(message)]);
  const params = Object.entries(chat.params ?? {}).map(([name, value]) => [RENAMED[name] ?? name, value]);
  return {
    id: entry.id,
    title: entry.title ?? chat.title,
    createdAt: milliseconds(entry.created_at),
    updatedAt: milliseconds(entry.updated_at),
    isPinned: entry.pinned === true,
    modelId: chat.models?.[0],
    system: chat.params?.system ?? chat.system,
    parameters: Object.fromEntries(params.filter(([name]) => PARAMETERS.includes(name))),
    messages: Object.fromEntries(messages),
    leafId: chat.history.currentId,
  };
}

function messageOf(message) {
  return {
    parentId: message.parentId ?? null,
    role: message.role,
    content: textOf(message.content),
    createdAt: milliseconds(message.timestamp),
    modelId: message.model,
  };
}

/** Pictures come as parts beside the text; the text stays. */
function textOf(content) {
  if (!Array.isArray(content)) return content;
  return content.map((part) => part?.text ?? "").join("");
}

function milliseconds(seconds) {
  return Number.isFinite(seconds) ? seconds * MS_PER_S : undefined;
}
