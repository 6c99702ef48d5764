/**
 * What was typed and not sent, by conversation.
 *
 * Knows nothing about pages. Invariant: `set` has kept the text when it returns, so closing the page right
 * after a key loses nothing; hence localStorage, which does not make one wait.
 */

const PREFIX = "ondol.draft.";

/**
 * @param {() => Storage} getStorage raises DOMException where the browser refuses
 * @returns {{ get(id: string): string, set(id: string, text: string): void, removeAll(): void }}
 */
export function createDrafts(getStorage) {
  const storage = available(getStorage);
  return {
    get: (id) => storage.getItem(PREFIX + id) ?? "",
    removeAll() {
      for (const key of keysOf(storage)) if (key.startsWith(PREFIX)) storage.removeItem(key);
    },
    set(id, text) {
      if (text === "") storage.removeItem(PREFIX + id);
      else keep(storage, PREFIX + id, text);
    },
  };
}

/** All of them before the first is removed: removing moves the others. */
function keysOf(storage) {
  return Array.from({ length: storage.length }, (_, index) => storage.key(index));
}

function available(getStorage) {
  try {
    return getStorage();
  } catch (error) {
    if (error instanceof DOMException) return memory();
    throw error;
  }
}

/** A draft beyond the browser's quota (5 MB) stays in its field. */
function keep(storage, key, text) {
  try {
    storage.setItem(key, text);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
  }
}

function memory() {
  const items = new Map();
  return {
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => void items.set(key, value),
    removeItem: (key) => void items.delete(key),
    key: (index) => [...items.keys()][index],
    get length() {
      return items.size;
    },
  };
}
