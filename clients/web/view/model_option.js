/**
 * One model in the list: its name, how it is stored, what it is doing.
 *
 * Knows nothing about choosing. Invariant: the element stays the same while progress is shown.
 */
import { fill, h, setProp } from "../dom.js";
import { icon } from "../icons.js";
import { factsText, progressShare, statusText } from "../models.js";

/**
 * @param {any} app
 * @param {string} id
 * @returns {{ element: HTMLElement, show(model: any, marks: { isChosen: boolean, isActive: boolean }): void }}
 */
export function createModelOption({ state, t }, id) {
  const facts = h("span", { class: "model-option-facts" });
  const status = h("span", { class: "model-option-status" });
  const bar = h("progress", { class: "model-progress", max: 1, "aria-hidden": "true" });
  const check = h("span", { class: "model-option-check" });
  const element = h(
    "div",
    { id: `model-${id.replace(/[^\w-]/g, "_")}`, class: "model-option", role: "option" },
    h("span", { class: "model-option-main" }, h("span", { class: "model-option-name" }, id), facts, status, bar),
    check,
  );
  return {
    element,
    show(model, { isChosen, isActive }) {
      const { locale } = state.get();
      const { value, failed } = model.status;
      facts.textContent = factsText(model, t, locale);
      status.textContent = statusText(model, t, locale);
      status.classList.toggle("is-failed", Boolean(failed));
      bar.hidden = value !== "loading" && value !== "downloading";
      const share = progressShare(model);
      if (share === null) bar.removeAttribute("value");
      else bar.value = share;
      setProp(element, "aria-selected", String(isChosen));
      element.classList.toggle("is-active", isActive);
      fill(check, isChosen && icon("check"));
    },
  };
}
