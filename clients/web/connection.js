/**
 * Whether the daemon is there, and what its models do: keeps `connection`, `models` and `modelId` of the
 * state true while the page is looked at.
 *
 * Knows nothing about conversations. Invariant: at most one event stream is open, and none in a page that
 * is hidden, for browsers allow six connections to one daemon over all its tabs.
 */

const POLL_MS = 1000;
const MAX_POLL_MS = 5000;

export class Connection {
  #state;
  #api;
  #page;
  #stream = new AbortController();
  #wake = () => undefined;
  #refreshing = null;

  /** @param {{ state: import("./state.js").State<any>, api: import("./api.js").Api, page: Document }} options */
  constructor({ state, api, page }) {
    this.#state = state;
    this.#api = api;
    this.#page = page;
  }

  /** Watches from now on, as long as the page lives. */
  start() {
    const check = () => this.check();
    this.#page.addEventListener("visibilitychange", check);
    for (const change of ["online", "offline"]) this.#page.defaultView.addEventListener(change, check);
    this.#state.subscribe(["needsKey"], ({ needsKey }) => needsKey || check());
    void this.#watch();
  }

  /** Looks at once whether the daemon is there. */
  check() {
    this.#stream.abort();
    this.#wake();
  }

  /** Reads the list of models anew; calls of one moment share one. @returns {Promise<void>} */
  refresh() {
    if (!this.#refreshing) {
      this.#refreshing = Promise.resolve().then(() => {
        this.#refreshing = null;
        return this.#readModels();
      });
      // Not at once: a daemon that listens and cannot tell its models would be asked without end.
      this.#refreshing.catch(() => setTimeout(() => this.check(), MAX_POLL_MS));
    }
    return this.#refreshing;
  }

  async #watch() {
    let pauseMs = POLL_MS;
    for (;;) {
      if (this.#isResting()) {
        await this.#pause(MAX_POLL_MS);
        continue;
      }
      try {
        pauseMs = await this.#look(pauseMs);
        if (this.#state.get().connection === "ready") continue;
      } catch (error) {
        if (error.name === "AbortError") continue;
        if (error.name !== "ApiError") throw error;
        if (isOutOfReach(error)) this.#state.set({ connection: "gone" });
        pauseMs = longer(pauseMs);
      }
      await this.#pause(pauseMs);
    }
  }

  /** Nobody looks, and no answer waits for the daemon; or it says nothing without a key. */
  #isResting() {
    const { connection, needsKey } = this.#state.get();
    return needsKey || (this.#page.hidden && connection === "ready");
  }

  /** One look at the daemon. @returns {Promise<number>} how long to wait until the next, in ms */
  async #look(lastPauseMs) {
    const phase = await this.#api.ready();
    this.#state.set({ connection: phase === "ready" ? "ready" : phase === "loading" ? "starting" : "gone" });
    if (phase === "ready" && !this.#page.hidden) await this.#watchModels();
    else if (phase === "loading") await this.#readModels();
    return phase === "draining" ? longer(lastPauseMs) : POLL_MS;
  }

  async #watchModels() {
    this.#stream = new AbortController();
    const onEvent = (event) => {
      const models = withEvent(this.#state.get().models, event);
      if (models) this.#state.set({ models });
      else void this.refresh();
    };
    // Only what happens from now on is told: the list comes after.
    await this.#api.modelEvents(onEvent, { signal: this.#stream.signal, onOpen: () => void this.refresh() });
  }

  async #readModels() {
    const models = await this.#api.models();
    this.#state.set({ models, modelId: chosenModel(models, this.#state.get().modelId) });
  }

  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
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
