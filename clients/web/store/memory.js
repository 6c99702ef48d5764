/**
 * Where conversations are while the page is open, in browsers that keep nothing for it.
 *
 * Knows nothing about what a conversation means. Invariant: what is read is a copy, as from a database.
 */

/** @typedef {import("./database.js").Backend} Backend */

/** @returns {Backend} */
export function createMemory() {
  const heads = new Map();
  /** @type {Map<string, Map<string, any>>} */
  const messages = new Map();
  const settings = new Map();
  return {
    isPersistent: false,
    heads: async () => structuredClone([...heads.values()]),
    async read(id) {
      if (!heads.has(id)) return null;
      return structuredClone({ head: heads.get(id), messages: [...messages.get(id).values()] });
    },
    has: async (id) => heads.has(id),
    async write(head, changed, removedIds) {
      heads.set(head.id, structuredClone(head));
      const kept = messages.get(head.id) ?? new Map();
      for (const message of changed) kept.set(message.id, structuredClone(message));
      for (const id of removedIds) kept.delete(id);
      messages.set(head.id, kept);
    },
    async remove(id) {
      heads.delete(id);
      messages.delete(id);
    },
    async clear() {
      heads.clear();
      messages.clear();
    },
    getSetting: async (key) => structuredClone(settings.get(key)),
    async setSetting(key, value) {
      if (value === null) settings.delete(key);
      else settings.set(key, structuredClone(value));
    },
  };
}
