/**
 * Whether the daemon is there, and what its models do: keeps `connection`, `models` and `modelId` of the
 * state true while the page is looked at.
 *
 * Knows nothing about conversations. Invariant: at most one event stream is open, and none in a page that
 * is hidden, for browsers allow six connections to one daemon over all its tabs.
 */

const POLL_MS = 1000;
const MAX_POLL_MS = 5000;

/**
 * @param {object} options
 * @param {import("./state.js").State<any>} options.state
 * @param {import("./api.js").Api} options.api
 * @param {Document} [options.page]
 * @returns {{ start(): void, check(): void, refresh(): Promise<void> }} `check` looks at once whether the
 *   daemon is there; `refresh` reads the list of models anew
 */
export function createConnection({ state, api, page = document }) {
  let stream = new AbortController();
  let wake = () => undefined;
  let refreshing = null;

  async function readModels() {
    const models = await api.models();
    state.set({ models, modelId: chosenModel(models, state.get().modelId) });
  }

  /** Calls while one is under way share the one that follows it. */
  function refresh() {
    if (!refreshing) {
      refreshing = Promise.resolve().then(() => {
        refreshing = null;
        return readModels();
      });
      refreshing.catch(() => check());
    }
    return refreshing;
  }

  function check() {
    stream.abort();
    wake();
  }

  function pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async function watchModels() {
    stream = new AbortController();
    const onEvent = (event) => {
      const models = withEvent(state.get().models, event);
      if (models) state.set({ models });
      else void refresh();
    };
    await api.modelEvents(onEvent, { signal: stream.signal, onOpen: () => void refresh() });
  }

  /** One look at the daemon. @returns how long to wait until the next, in ms */
  async function look(lastPauseMs) {
    const phase = await api.ready();
    state.set({ connection: phase === "ready" ? "ready" : phase === "loading" ? "starting" : "gone" });
    if (phase === "ready") await watchModels();
    else if (phase === "loading") await readModels();
    return phase === "draining" ? longer(lastPauseMs) : POLL_MS;
  }

  async function watch() {
    let pauseMs = POLL_MS;
    for (;;) {
      if (page.hidden || state.get().needsKey) {
        await pause(MAX_POLL_MS);
        continue;
      }
      try {
        pauseMs = await look(pauseMs);
        if (state.get().connection === "ready") continue;
      } catch (error) {
        if (error.name === "AbortError") continue;
        if (isOutOfReach(error)) state.set({ connection: "gone" });
        pauseMs = longer(pauseMs);
      }
      await pause(pauseMs);
    }
  }

  return {
    start() {
      page.addEventListener("visibilitychange", check);
      page.defaultView.addEventListener("online", check);
      state.subscribe(["needsKey"], ({ needsKey }) => needsKey || check());
      void watch();
    },
    check,
    refresh,
  };
}

/** @param {number} pauseMs */
function longer(pauseMs) {
  return Math.min(pauseMs * 1.5, MAX_POLL_MS);
}

/** No answer at all; a proxy answers 502 to 504 in the daemon's stead. */
function isOutOfReach(error) {
  return error.code === "unreachable" || [502, 503, 504].includes(error.status);
}

/**
 * The list after an event of /models/sse.
 *
 * @param {any[]} models
 * @param {any} event
 * @returns {any[] | null} null where only the whole list tells
 */
export function withEvent(models, event) {
  const index = models.findIndex((model) => model.id === event.model);
  if (index < 0) return null;
  const replaced = (entry) => models.map((model, position) => (position === index ? entry : model));
  if (event.event === "model_status") {
    const { status, info, ...rest } = event.data;
    return replaced(info ?? { ...models[index], status: { value: status, ...rest } });
  }
  if (event.event === "download_progress") {
    return replaced({ ...models[index], status: { value: "downloading", progress: event.data } });
  }
  return null;
}

/**
 * The model to talk to: the one that was chosen, as long as it exists, else one that needs no wait.
 *
 * @param {any[]} models
 * @param {string | null} wanted
 * @returns {string | null}
 */
export function chosenModel(models, wanted) {
  if (models.some((model) => model.id === wanted)) return wanted;
  const loaded = models.find((model) => model.status.value === "loaded");
  const coming = models.find((model) => model.status.value === "loading");
  return (loaded ?? coming ?? models.find((model) => model.in_cache))?.id ?? null;
}
