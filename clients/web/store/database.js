/**
 * Conversations in the browser's IndexedDB, so that they survive the page.
 *
 * Knows nothing about what a conversation means. A conversation is its head and one record per message:
 * while an answer streams into two thousand messages, one is written. Invariant: a write is one
 * transaction, so what is read is what some write left.
 */

const NAME = "ondol";
/** One upgrade step per version; a step never changes once it is released. */
const UPGRADES = [
  (database) => {
    database.createObjectStore("heads", { keyPath: "id" });
    database.createObjectStore("messages", { keyPath: ["conversationId", "message.id"] });
    database.createObjectStore("settings");
  },
];

/**
 * @typedef {object} Backend
 * @property {boolean} isPersistent
 * @property {() => Promise<any[]>} heads of all conversations: everything but their messages
 * @property {(id: string) => Promise<{ head: any, messages: any[] } | null>} read
 * @property {(id: string) => Promise<boolean>} has
 * @property {(head: any, changed: any[], removedIds: string[]) => Promise<void>} write
 * @property {(id: string) => Promise<void>} remove
 * @property {() => Promise<void>} clear removes all conversations
 * @property {(key: string) => Promise<any>} getSetting undefined where nothing was set
 * @property {(key: string, value: any) => Promise<void>} setSetting null takes it away
 */

/**
 * @param {IDBFactory} factory the browser's indexedDB
 * @returns {Promise<Backend>} raises DOMException where the browser refuses
 */
export async function openDatabase(factory) {
  const opening = factory.open(NAME, UPGRADES.length);
  opening.onupgradeneeded = ({ oldVersion }) => {
    for (const upgrade of UPGRADES.slice(oldVersion)) upgrade(opening.result);
  };
  const database = await settled(opening);
  // A newer page in another tab wants to upgrade: this one lets go, and opens anew when it reloads.
  database.onversionchange = () => database.close();
  return backend(database);
}

/** @param {IDBDatabase} database @returns {Backend} */
function backend(database) {
  const reading = (...stores) => database.transaction(stores, "readonly");
  // "strict" would flush the disk at every piece of a stream.
  const writing = (...stores) => database.transaction(stores, "readwrite", { durability: "relaxed" });
  return {
    isPersistent: true,
    heads: () => settled(reading("heads").objectStore("heads").getAll()),
    async read(id) {
      const transaction = reading("heads", "messages");
      const [head, records] = await Promise.all([
        settled(transaction.objectStore("heads").get(id)),
        settled(transaction.objectStore("messages").getAll(allOf(id))),
      ]);
      return head ? { head, messages: records.map((record) => record.message) } : null;
    },
    has: async (id) => (await settled(reading("heads").objectStore("heads").count(id))) > 0,
    write(head, changed, removedIds) {
      const transaction = writing("heads", "messages");
      transaction.objectStore("heads").put(head);
      const messages = transaction.objectStore("messages");
      for (const message of changed) messages.put({ conversationId: head.id, message });
      for (const messageId of removedIds) messages.delete([head.id, messageId]);
      return finished(transaction);
    },
    remove(id) {
      const transaction = writing("heads", "messages");
      transaction.objectStore("heads").delete(id);
      transaction.objectStore("messages").delete(allOf(id));
      return finished(transaction);
    },
    clear() {
      const transaction = writing("heads", "messages");
      transaction.objectStore("heads").clear();
      transaction.objectStore("messages").clear();
      return finished(transaction);
    },
    getSetting: (key) => settled(reading("settings").objectStore("settings").get(key)),
    setSetting(key, value) {
      const transaction = writing("settings");
      const settings = transaction.objectStore("settings");
      if (value === null) settings.delete(key);
      else settings.put(value, key);
      return finished(transaction);
    },
  };
}

/** @param {string} id @returns the keys of a conversation's messages: arrays sort after strings */
function allOf(id) {
  return IDBKeyRange.bound([id], [id, []]);
}

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @param {IDBTransaction} transaction @returns {Promise<void>} */
function finished(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}
