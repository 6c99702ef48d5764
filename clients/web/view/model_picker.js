/**
 * Which model answers: a button in the header, and the list of models that it opens.
 *
 * Knows nothing about how models are loaded. Invariant: the button tells the model and what it is doing, also
 * while the list is closed; of a daemon that is gone it tells that.
 */
import { fill, h, setProp } from "../dom.js";
import { icon } from "../icons.js";
import { percentText, progressShare, statusText } from "../models.js";
import { createModelDetail } from "./model_detail.js";
import { ModelList } from "./model_list.js";
import { createModelOrders } from "./model_orders.js";

const MARGIN_PX = 12;

/**
 * @param {any} app
 * @returns {HTMLElement}
 */
export function createModelPicker(app) {
  const { state, t } = app;
  const orders = createModelOrders(app);
  const panel = h("div", { id: "model-panel", class: "model-panel", popover: "auto", role: "dialog", "aria-label": t("model.choose") });
  const button = h("button", {
    id: "model-button",
    class: "model-button",
    type: "button",
    "aria-haspopup": "dialog",
    popovertarget: "model-panel",
  });
  const detail = createModelDetail(app, orders);
  const list = new ModelList(app, { orders, detail, close: () => panel.hidePopover() });
  panel.append(list.element, detail.element);
  panel.addEventListener("toggle", ({ newState }) => {
    setProp(button, "aria-expanded", String(newState === "open"));
    if (newState !== "open") return;
    place(panel, button.getBoundingClientRect());
    list.open();
  });
  const show = () => {
    showButton(app, button);
    if (panel.matches(":popover-open")) list.show();
  };
  state.subscribe(["models", "modelId", "connection"], show);
  show();
  return h("div", { class: "model-picker" }, button, panel);
}

/** Below its button, and inside of the window. */
function place(panel, anchor) {
  const left = Math.min(anchor.left, innerWidth - panel.offsetWidth - MARGIN_PX);
  panel.style.left = `${Math.max(left, MARGIN_PX)}px`;
  panel.style.top = `${anchor.bottom + MARGIN_PX / 2}px`;
}

function showButton({ state, t }, button) {
  const { models, modelId, connection, locale } = state.get();
  const isGone = connection === "gone";
  const model = models.find((candidate) => candidate.id === modelId);
  // The list may not be here yet, or not be told.
  const name = modelId ?? t("model.choose");
  const status = isGone ? t("connection.gone") : model ? statusText(model, t, locale) : "";
  const isBusy = !isGone && ["loading", "downloading"].includes(model?.status.value);
  button.classList.toggle("is-failed", isGone || Boolean(model?.status.failed));
  fill(
    button,
    h("span", { class: ["model-dot", `is-${isGone ? "gone" : (model?.status.value ?? "none")}`] }),
    h("span", { class: "model-button-name" }, name),
    isBusy && h("span", { class: "model-button-status" }, percentText(progressShare(model), locale) || t("model.busy")),
    icon("chevron"),
  );
  const label = modelId ? t("model.chosen", { name }) : name;
  setProp(button, "aria-label", [label, status].filter(Boolean).join(" "));
}
