/**
 * Labelled fields of the settings.
 *
 * Knows nothing about what they set. Invariant: every field has a label, and its hint and its problem are
 * read with it.
 */
import { h, setProp } from "../dom.js";

/**
 * @param {object} options
 * @param {string} options.id
 * @param {string} options.label
 * @param {string} [options.name] what the API calls it
 * @param {string} [options.hint]
 * @param {HTMLElement} control
 * @returns {{ element: HTMLElement, setProblem(text: string): void }}
 */
export function createField({ id, label, name, hint }, control) {
  const problem = h("p", { id: `${id}-problem`, class: "field-problem", role: "alert" });
  const described = [hint && `${id}-hint`, `${id}-problem`].filter(Boolean).join(" ");
  setProp(control, "id", id);
  setProp(control, "aria-describedby", described);
  control.classList.add("field-input");
  const element = h(
    "div",
    { class: "field" },
    h("label", { class: "field-label", for: id }, label, name && h("code", { class: "field-name" }, name)),
    control,
    hint && h("p", { id: `${id}-hint`, class: "field-hint" }, hint),
    problem,
  );
  return {
    element,
    setProblem(text) {
      if (problem.textContent !== text) problem.textContent = text;
      setProp(control, "aria-invalid", text ? "true" : null);
    },
  };
}

/**
 * @param {object} options
 * @param {string} options.id
 * @param {string} options.label
 * @param {{ value: string, label: string }[]} options.choices
 * @param {string} options.value
 * @param {(value: string) => void} options.onChoose
 * @returns {HTMLElement} a select with its label
 */
export function selectField({ id, label, choices, value, onChoose }) {
  const select = h(
    "select",
    null,
    choices.map((choice) => h("option", { value: choice.value, selected: choice.value === value }, choice.label)),
  );
  select.addEventListener("change", () => onChoose(select.value));
  return createField({ id, label }, select).element;
}

/**
 * @param {object} options
 * @param {string} options.name of the group
 * @param {string} options.label
 * @param {{ value: string, label: string }[]} options.choices
 * @param {string} options.value
 * @param {(value: string) => void} options.onChoose
 * @returns {HTMLElement} radio buttons side by side
 */
export function segmentedField({ name, label, choices, value, onChoose }) {
  const radio = (choice) => {
    const input = h("input", { type: "radio", name, value: choice.value, class: "segment-input", checked: choice.value === value });
    input.addEventListener("change", () => onChoose(choice.value));
    return h("label", { class: "segment" }, input, h("span", { class: "segment-label" }, choice.label));
  };
  return h("fieldset", { class: "field" }, h("legend", { class: "field-label" }, label), h("div", { class: "segments" }, choices.map(radio)));
}
