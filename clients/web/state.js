/**
 * One flat object that the page's parts share, and who wants to hear of which of its keys.
 *
 * Knows nothing about what the keys mean. Invariant: a listener hears at most once per microtask,
 * and always sees the newest state.
 */

/**
 * @template {object} S
 * @typedef {object} State
 * @property {() => S} get the newest state; do not change it
 * @property {(patch: Partial<S>) => void} set replaces the keys of `patch`
 * @property {(keys: (keyof S)[], listener: (state: S) => void) => () => void} subscribe
 *   calls `listener` after any of `keys` changed; returns what ends that
 */

/**
 * @template {object} S
 * @param {S} initial
 * @returns {State<S>}
 */
export function createState(initial) {
  let current = { ...initial };
  let changed = new Set();
  const subscriptions = new Set();

  function flush() {
    const keys = changed;
    changed = new Set();
    for (const subscription of [...subscriptions]) {
      if (subscriptions.has(subscription) && subscription.keys.some((key) => keys.has(key))) {
        notify(subscription.listener, current);
      }
    }
  }

  return {
    get: () => current,
    set(patch) {
      const keys = Object.keys(patch).filter((key) => !Object.is(patch[key], current[key]));
      if (keys.length === 0) return;
      current = { ...current, ...patch };
      if (changed.size === 0) queueMicrotask(flush);
      for (const key of keys) changed.add(key);
    },
    subscribe(keys, listener) {
      const subscription = { keys, listener };
      subscriptions.add(subscription);
      return () => subscriptions.delete(subscription);
    },
  };
}

/** A listener's bug must not keep the others from hearing; it surfaces as an uncaught error. */
function notify(listener, state) {
  try {
    listener(state);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
