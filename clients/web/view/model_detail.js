/**
 * What can be done with the active model of the list: load, unload, give up, ask whether it fits.
 *
 * Knows nothing about the list. Invariant: the buttons stay the same elements while the model's status is
 * the same, so that progress does not take the focus away.
 */
import { fill, h } from "../dom.js";
import { fitText } from "../models.js";

/**
 * @param {any} app
 * @param {ReturnType<typeof import("./model_orders.js").createModelOrders>} orders
 * @returns {{ element: HTMLElement, show(model: any): void, focus(): void }}
 */
export function createModelDetail(app, orders) {
  const { t, chat } = app;
  const note = h("p", { class: "model-detail-note", role: "status" });
  const buttons = h("div", { class: "model-detail-buttons" });
  const element = h("div", { class: "model-detail", hidden: true }, note, buttons);
  let shownKey = null;

  const button = (label, run, className = "") => h("button", { class: ["button", className], type: "button", onclick: run }, label);

  async function askFit(id) {
    note.textContent = t("model.fitAsked");
    const report = await orders.fit(id);
    if (shownKey?.startsWith(`${id} `)) note.textContent = report ? fitText(report, t, app.state.get().locale) : "";
  }

  function buttonsFor({ id, in_cache: isHere, status }) {
    const load = () => {
      void chat.chooseModel(id);
      void orders.load(id);
    };
    switch (status.value) {
      case "loaded":
        return [button(t("model.unload"), () => void orders.unload(id))];
      case "loading":
      case "downloading":
        return [button(t("model.giveUp"), () => void orders.unload(id))];
      case "unloaded":
        return [
          button(t("model.askFit"), () => void askFit(id)),
          button(t(isHere ? "model.load" : "model.download"), load, "is-primary"),
        ];
      default:
        return [];
    }
  }

  return {
    element,
    show(model) {
      const key = model && `${model.id} ${model.status.value} ${model.in_cache}`;
      if (key === shownKey) return;
      shownKey = key;
      element.hidden = !model;
      const isIdle = model?.status.value === "unloaded";
      note.textContent = isIdle ? t(model.in_cache ? "model.loadsLater" : "model.notHere") : "";
      fill(buttons, ...(model ? buttonsFor(model) : []));
    },
    focus: () => buttons.querySelector(".is-primary")?.focus(),
  };
}
