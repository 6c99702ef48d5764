/**
 * Which model answers: a button in the header, and the list of models that it opens.
 *
 * Knows nothing about how models are loaded. Invariant: the list has the keyboard's focus and one active
 * option; what can be done with that one stands below the list.
 */
import { fill, h, setProp } from "../dom.js";
import { icon } from "../icons.js";
import { isForInputMethod } from "../ime.js";
import { groupModels, percentText, progressShare, statusText } from "../models.js";
import { createModelDetail } from "./model_detail.js";
import { createModelOrders } from "./model_orders.js";
import { createModelOption } from "./model_option.js";

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
  const list = createModelList(app, orders, () => panel.hidePopover());
  panel.append(list.element, list.detail);
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
  state.subscribe(["models", "modelId"], show);
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
  const { models, modelId, locale } = state.get();
  const model = models.find((candidate) => candidate.id === modelId);
  // The list may not be here yet, or not be told.
  const name = modelId ?? t("model.choose");
  const status = model ? statusText(model, t, locale) : "";
  const isBusy = ["loading", "downloading"].includes(model?.status.value);
  button.classList.toggle("is-failed", Boolean(model?.status.failed));
  fill(
    button,
    h("span", { class: ["model-dot", `is-${model?.status.value ?? "none"}`] }),
    h("span", { class: "model-button-name" }, name),
    isBusy && h("span", { class: "model-button-status" }, percentText(progressShare(model), locale) || t("model.busy")),
    icon("chevron"),
  );
  const label = modelId ? t("model.chosen", { name }) : name;
  setProp(button, "aria-label", [label, status].filter(Boolean).join(" "));
}

function createModelList(app, orders, close) {
  const { state, chat, t } = app;
  const listbox = h("div", { id: "model-list", class: "model-list", role: "listbox", tabindex: 0, "aria-label": t("model.list") });
  const detail = createModelDetail(app, orders);
  const options = new Map();
  let activeId = null;

  const ordered = () => groupModels(state.get().models).flatMap((group) => group.models);

  function optionOf(model) {
    if (!options.has(model.id)) {
      const option = createModelOption(app, model.id);
      option.element.addEventListener("click", () => choose(model.id));
      options.set(model.id, option);
    }
    const option = options.get(model.id);
    option.show(model, { isChosen: model.id === state.get().modelId, isActive: model.id === activeId });
    return option.element;
  }

  function show() {
    const groups = groupModels(state.get().models).map(({ name, models }) =>
      h(
        "div",
        { class: "model-group", role: "group", "aria-label": t(`model.group.${name}`) },
        h("div", { class: "model-group-name", "aria-hidden": "true" }, t(`model.group.${name}`)),
        models.map(optionOf),
      ),
    );
    fill(listbox, ...groups, groups.length === 0 && h("p", { class: "model-empty" }, t("model.empty")));
    setProp(listbox, "aria-activedescendant", options.get(activeId)?.element.id ?? null);
    detail.show(ordered().find((model) => model.id === activeId) ?? null);
  }

  function activate(id, { isScrolled = false } = {}) {
    activeId = id;
    show();
    if (isScrolled) options.get(id)?.element.scrollIntoView({ block: "nearest" });
  }

  /** Memory and network are not spent on a stray click: what is not loaded is loaded by the button below. */
  function choose(id) {
    const model = ordered().find((candidate) => candidate.id === id);
    const isChosen = id === state.get().modelId;
    activate(id);
    if (!model.in_cache) return detail.focus();
    if (!isChosen) void chat.chooseModel(id);
    else if (model.status.value === "unloaded") void orders.load(id);
    if (model.status.value === "loaded") close();
  }

  listbox.addEventListener("keydown", (event) => onListKey(event, { models: ordered(), activeId, activate, choose }));
  return {
    element: listbox,
    detail: detail.element,
    show,
    open() {
      activate(state.get().modelId ?? ordered()[0]?.id ?? null, { isScrolled: true });
      listbox.focus();
    },
  };
}

function onListKey(event, { models, activeId, activate, choose }) {
  if (isForInputMethod(event) || event.ctrlKey || event.metaKey || event.altKey || models.length === 0) return;
  const at = models.findIndex((model) => model.id === activeId);
  const last = models.length - 1;
  const target = { ArrowDown: Math.min(at + 1, last), ArrowUp: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
  if (target !== undefined) {
    event.preventDefault();
    activate(models[target].id, { isScrolled: true });
  } else if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    if (activeId !== null) choose(activeId);
  } else if (event.key.length === 1) {
    const begins = (model) => model.id.toLowerCase().startsWith(event.key.toLowerCase());
    const next = [...models.slice(at + 1), ...models.slice(0, at + 1)].find(begins);
    if (next) activate(next.id, { isScrolled: true });
  }
}
