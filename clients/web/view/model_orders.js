/**
 * Loading and unloading on the reader's order, and hearing how it went.
 *
 * Knows nothing about lists. Invariant: an order that failed is told, at once or when its load failed later.
 */
import { problemText } from "../problems.js";

/**
 * @param {any} app
 * @returns {{ load(id: string): Promise<void>, unload(id: string): Promise<void>, fit(id: string): Promise<any> }}
 */
export function createModelOrders(app) {
  const { state, api, t } = app;
  /** Models whose load was asked for here and has not ended. */
  const underway = new Set();

  const tell = (id, error, retry) => {
    const action = retry && { label: t("action.retry"), run: retry };
    state.set({ notice: { kind: "error", text: problemText(t, error, id), action } });
  };

  /** Carries out an order; what the daemon refuses is told, whatever else goes wrong is a bug. */
  async function order(id, work, retry) {
    try {
      return await work();
    } catch (error) {
      if (error.name !== "ApiError") throw error;
      // The key dialog speaks for itself.
      if (error.code !== "invalid_api_key") tell(id, error, retry);
      return null;
    }
  }

  async function load(id) {
    underway.add(id);
    const isTaken = await order(id, () => api.load(id), () => void load(id));
    if (!isTaken) underway.delete(id);
  }

  state.subscribe(["models"], ({ models }) => {
    for (const model of models.filter(({ id }) => underway.has(id))) {
      const { value, failed, error } = model.status;
      if (value === "loaded" || failed) underway.delete(model.id);
      if (failed && error) tell(model.id, error, () => void load(model.id));
    }
  });

  return {
    load,
    async unload(id) {
      underway.delete(id);
      await order(id, () => api.unload(id));
    },
    fit: (id) => order(id, () => api.fit(id)),
  };
}
