/**
 * The reader's conversations and choices, kept in this browser alone.
 *
 * Knows nothing about pages or the daemon. Invariant: saves of one conversation reach the disk in the
 * order in which they were asked for, and each writes only the messages that changed.
 */
import { readExport, writeExport } from "./transfer.js";
import { openDatabase } from "./database.js";
import { createMemory } from "./memory.js";
import { createMatcher, isVague } from "./search.js";

/** @typedef {import("../conversation.js").Conversation} Conversation */
/** @typedef {Omit<Conversation, "messages"> & { numMessages: number }} Summary */
/** @typedef {import("./search.js").Snippet} Snippet */
/** @typedef {{ summary: Summary, title: Snippet | null, message: Snippet | null }} Hit where it was found, the title first */

/**
 * @typedef {object} Store
 * @property {boolean} isPersistent false where the browser keeps nothing for the page
 * @property {() => Promise<Summary[]>} list all conversations, the newest first
 * @property {(id: string) => Promise<Conversation | null>} load
 * @property {(conversation: Conversation) => Promise<void>} save raises DOMException when the disk is full
 * @property {(id: string) => Promise<void>} remove
 * @property {() => Promise<void>} removeAll conversations; settings stay
 * @property {(text: string, signal?: AbortSignal) => Promise<Hit[]>} search titles and messages, the newest first;
 *   stops where it is when the signal says so
 * @property {(ids?: string[]) => Promise<object>} exportAll a JSON value of the form of transfer.js
 * @property {(json: unknown) => Promise<{ numAdded: number, numSkipped: number, numCopied: number }>} importAll
 *   raises InvalidExport; a conversation that is here in other words is added beside it
 * @property {(key: string) => Promise<any>} getSetting undefined where nothing was set
 * @property {(key: string, value: any) => Promise<void>} setSetting null takes it away
 */

/**
 * @param {{ factory?: IDBFactory | null, newId: () => string }} options `newId` names imported copies
 * @returns {Promise<Store>} in memory where the browser refuses
 */
export async function openStore({ factory = globalThis.indexedDB, newId }) {
  const backend = await openBackend(factory);
  const saved = createSaved();
  const writes = createQueue();

  /** As it is on the disk; what the page holds of it stays what `save` compares with. */
  async function read(id) {
    await writes.idle();
    const found = await backend.read(id);
    return found && wholeOf(found);
  }

  async function load(id) {
    const conversation = await read(id);
    if (conversation) saved.remember(id, conversation.messages);
    return conversation;
  }

  async function write(conversation) {
    const { messages, ...head } = conversation;
    if (!(await backend.has(head.id))) saved.forget(head.id);
    const { changed, removedIds } = saved.difference(head.id, messages);
    await backend.write({ ...head, numMessages: Object.keys(messages).length }, changed, removedIds);
    saved.remember(head.id, messages);
  }

  const store = {
    isPersistent: backend.isPersistent,
    async list() {
      await writes.idle();
      return (await backend.heads()).sort((first, second) => second.updatedAt - first.updatedAt);
    },
    load,
    save: (conversation) => writes.add(() => write(conversation)),
    remove: (id) => writes.add(() => backend.remove(id)),
    removeAll: () => writes.add(() => backend.clear()),
    search: async (text, signal) => search(await store.list(), read, { text, signal }),
    exportAll: async (ids) => exportAll(ids ?? (await store.list()).map((summary) => summary.id), read),
    importAll: (json) => importAll(readExport(json, newId), { read, save: store.save, newId }),
    getSetting: (key) => backend.getSetting(key),
    setSetting: (key, value) => backend.setSetting(key, value),
  };
  return store;
}

async function openBackend(factory) {
  if (!factory) return createMemory();
  try {
    return await openDatabase(factory);
  } catch (error) {
    // Private windows and blocked site data refuse in different ways, all of them DOMExceptions.
    if (error instanceof DOMException) return createMemory();
    throw error;
  }
}

/** One write after the other; a failed one fails its caller, not those that follow. */
function createQueue() {
  let last = Promise.resolve();
  return {
    idle: () => last,
    add(write) {
      const result = last.then(write);
      last = result.catch(() => undefined);
      return result;
    },
  };
}

/** What the disk has of each conversation, message by message. */
function createSaved() {
  /** @type {Map<string, Map<string, any>>} */
  const conversations = new Map();
  return {
    remember(id, messages) {
      conversations.set(id, new Map(Object.entries(messages)));
    },
    forget: (id) => void conversations.delete(id),
    difference(id, messages) {
      const known = conversations.get(id) ?? new Map();
      return {
        // Messages are never changed in place (conversation.js), so another message is another object.
        changed: Object.values(messages).filter((message) => known.get(message.id) !== message),
        removedIds: [...known.keys()].filter((messageId) => !Object.hasOwn(messages, messageId)),
      };
    },
  };
}

/** Siblings are told apart by age, and keys of the database are not: the oldest first, as they were written. */
function wholeOf({ head: { numMessages: _, ...head }, messages }) {
  messages.sort((first, second) => first.createdAt - second.createdAt);
  return { ...head, messages: Object.fromEntries(messages.map((message) => [message.id, message])) };
}

/** @returns {Promise<Hit[]>} */
async function search(summaries, read, { text, signal }) {
  const match = createMatcher(text);
  if (!match) return [];
  const hits = [];
  for (const summary of summaries) {
    if (signal?.aborted) break;
    const title = match(summary.title);
    const message = title || isVague(text) ? null : newestMatch(await read(summary.id), match);
    if (title || message) hits.push({ summary, title, message });
  }
  return hits;
}

function newestMatch(conversation, match) {
  for (const message of Object.values(conversation?.messages ?? {}).reverse()) {
    const snippet = match(message.content);
    if (snippet) return snippet;
  }
  return null;
}

async function exportAll(ids, read) {
  const conversations = [];
  for (const id of ids) {
    const conversation = await read(id);
    if (conversation) conversations.push(conversation);
  }
  return writeExport(conversations, new Date());
}

async function importAll(conversations, { read, save, newId }) {
  const counts = { numAdded: 0, numSkipped: 0, numCopied: 0 };
  for (const conversation of conversations) {
    const present = await read(conversation.id);
    if (!present) {
      await save(conversation);
      counts.numAdded += 1;
    } else if (isSame(present, conversation)) {
      counts.numSkipped += 1;
    } else {
      await save({ ...conversation, id: newId() });
      counts.numCopied += 1;
    }
  }
  return counts;
}

/** Whether an import would add nothing: every message is here, word for word. */
function isSame(present, imported) {
  return Object.values(imported.messages).every(
    (message) => present.messages[message.id]?.content === message.content,
  );
}
