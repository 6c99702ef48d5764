/**
 * The models as a listbox: by where they are, one of them active.
 *
 * Knows nothing about how models are loaded. Invariant: the list itself has the keyboard's focus; what can be
 * done with the active model stands below it.
 */
import { fill, h, setProp } from "../dom.js";
import { isForInputMethod } from "../ime.js";
import { groupModels } from "../models.js";
import { createModelOption } from "./model_option.js";

export class ModelList {
  #app;
  #parts;
  #options = new Map();
  #activeId = null;

  /**
   * @param {any} app
   * @param {object} parts
   * @param {ReturnType<typeof import("./model_orders.js").createModelOrders>} parts.orders
   * @param {ReturnType<typeof import("./model_detail.js").createModelDetail>} parts.detail
   * @param {() => void} parts.close what to do once a model is chosen that answers at once
   */
  constructor(app, parts) {
    this.#app = app;
    this.#parts = parts;
    const label = app.t("model.list");
    /** @type {HTMLElement} */
    this.element = h("div", { id: "model-list", class: "model-list", role: "listbox", tabindex: 0, "aria-label": label });
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Begins at the model that answers now. */
  open() {
    const { modelId } = this.#app.state.get();
    this.#activate(modelId ?? this.#models()[0]?.id ?? null);
    this.element.focus();
  }

  /** The list as the state has it now. */
  show() {
    const { state, t } = this.#app;
    const groups = groupModels(state.get().models).map(({ name, models }) =>
      h(
        "div",
        { class: "model-group", role: "group", "aria-label": t(`model.group.${name}`) },
        h("div", { class: "model-group-name", "aria-hidden": "true" }, t(`model.group.${name}`)),
        models.map((model) => this.#optionOf(model)),
      ),
    );
    fill(this.element, ...groups, groups.length === 0 && h("p", { class: "model-empty" }, t("model.empty")));
    setProp(this.element, "aria-activedescendant", this.#options.get(this.#activeId)?.element.id ?? null);
    this.#parts.detail.show(this.#models().find((model) => model.id === this.#activeId) ?? null);
  }

  /** In the order in which they are shown. */
  #models() {
    return groupModels(this.#app.state.get().models).flatMap((group) => group.models);
  }

  #optionOf(model) {
    const { id } = model;
    if (!this.#options.has(id)) {
      const option = createModelOption(this.#app, id);
      option.element.addEventListener("click", () => this.#choose(id));
      this.#options.set(id, option);
    }
    const option = this.#options.get(id);
    option.show(model, { isChosen: id === this.#app.state.get().modelId, isActive: id === this.#activeId });
    return option.element;
  }

  #activate(id) {
    this.#activeId = id;
    this.show();
    this.#options.get(id)?.element.scrollIntoView({ block: "nearest" });
  }

  /** Memory and network are not spent on a stray click: what is not loaded is loaded by the button below. */
  #choose(id) {
    const { state, chat } = this.#app;
    const { orders, detail, close } = this.#parts;
    const model = this.#models().find((candidate) => candidate.id === id);
    const isChosen = id === state.get().modelId;
    this.#activate(id);
    if (!model.in_cache) {
      detail.focus();
      return;
    }
    if (!isChosen) void chat.chooseModel(id);
    else if (model.status.value === "unloaded") void orders.load(id);
    if (model.status.value === "loaded") close();
  }

  #onKey(event) {
    const models = this.#models();
    if (isForInputMethod(event) || event.ctrlKey || event.metaKey || event.altKey || models.length === 0) return;
    const at = models.findIndex((model) => model.id === this.#activeId);
    const last = models.length - 1;
    const target = { ArrowDown: Math.min(at + 1, last), ArrowUp: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
    if (target !== undefined) {
      event.preventDefault();
      this.#activate(models[target].id);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (this.#activeId !== null) this.#choose(this.#activeId);
    } else if (event.key.length === 1) {
      this.#activateByLetter(event.key.toLowerCase(), [...models.slice(at + 1), ...models.slice(0, at + 1)]);
    }
  }

  #activateByLetter(letter, models) {
    const next = models.find((model) => model.id.toLowerCase().startsWith(letter));
    if (next) this.#activate(next.id);
  }
}
