/**
 * Which conversation the page's address names: `#c=ID`, so that reloading and going back find it.
 *
 * Knows nothing about what a conversation holds. Invariant: the address names the open conversation, or
 * none while nothing was said in it.
 */

const PREFIX = "#c=";

/** @param {string} hash @returns {string | null} */
export function idInHash(hash) {
  return hash.startsWith(PREFIX) ? decodeURIComponent(hash.slice(PREFIX.length)) : null;
}

/**
 * Opens what the address names, now and when it changes, and writes what is open into it.
 *
 * @param {{ state: any, chat: any }} app
 * @param {Window} view
 * @returns {Promise<void>} when the first conversation is open
 */
export async function followAddress({ state, chat }, view) {
  async function open() {
    const id = idInHash(view.location.hash);
    if (id === null || !(await chat.open(id))) chat.create();
  }

  function write({ conversation }) {
    const hash = conversation.leafId === null ? "" : PREFIX + encodeURIComponent(conversation.id);
    if (hash === view.location.hash) return;
    const url = view.location.pathname + view.location.search + hash;
    // The same conversation with its first message is no step to go back to.
    if (view.location.hash === "") view.history.replaceState(null, "", url);
    else view.history.pushState(null, "", url);
  }

  await open();
  view.addEventListener("popstate", () => void open());
  state.subscribe(["conversation"], write);
}
