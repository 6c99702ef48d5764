/**
 * The open conversation's own settings: system prompt and parameters.
 *
 * Knows nothing about requests. Invariant: what a field holds is kept once it is sound, without a button
 * to save it; an empty field is the model's own default, which it shows.
 */
import { h, setProp } from "../dom.js";
import { PARAMETERS, parseParameter, parseStops, withParameter } from "../parameters.js";
import { createPanel } from "./dialog.js";
import { createField } from "./fields.js";

const SAVE_DELAY_MS = 300;

/**
 * @param {any} app
 * @returns {HTMLDialogElement}
 */
export function createChatSettings(app) {
  const { t } = app;
  const saver = createSaver(app);
  const system = systemField(app, saver);
  const numbers = PARAMETERS.map((parameter) => numberField(app, parameter, saver));
  const stops = stopsField(app, saver);
  const fields = [system, ...numbers, stops];
  const reset = () => {
    saver.set({ system: "", parameters: {} });
    for (const field of fields) field.show("", {});
  };
  const note = h("p", { class: "form-text" }, t("chatSettings.note"));
  const form = h(
    "form",
    { class: "form", novalidate: true, onsubmit: (event) => event.preventDefault(), onchange: saver.flush },
    system.element,
    h("h3", { class: "form-heading" }, t("chatSettings.parameters")),
    note,
    h("div", { class: "form-grid" }, numbers.map((field) => field.element), stops.element),
    h("div", { class: "form-buttons" }, h("button", { class: "button", type: "button", onclick: reset }, t("chatSettings.reset"))),
  );
  const onOpen = () => {
    const { conversation } = app.state.get();
    for (const field of fields) field.show(conversation.system, conversation.parameters);
    void showDefaults(app, numbers);
  };
  const dialog = createPanel(app, "chatSettings", { title: t("chatSettings.title") }, { onOpen }, form);
  dialog.addEventListener("close", saver.flush);
  return dialog;
}

/**
 * Saves when typing pauses and when a field is left: that a dialog closes is told with the next frame, and by
 * then the next question may be sent.
 */
function createSaver({ state, chat }) {
  let patch = null;
  let timer = null;
  const flush = () => {
    clearTimeout(timer);
    if (patch) void chat.configure(patch);
    patch = null;
  };
  const set = (change) => {
    patch = { ...patch, ...change };
    clearTimeout(timer);
    timer = setTimeout(flush, SAVE_DELAY_MS);
  };
  return {
    flush,
    set,
    setParameter(name, value) {
      const parameters = patch?.parameters ?? state.get().conversation.parameters;
      set({ parameters: withParameter(parameters, name, value) });
    },
  };
}

function systemField({ t }, saver) {
  const textarea = h("textarea", { rows: 4, placeholder: t("chatSettings.systemPlaceholder") });
  textarea.addEventListener("input", () => saver.set({ system: textarea.value.normalize("NFC") }));
  const hint = t("chatSettings.systemHint");
  const { element } = createField({ id: "chat-system", label: t("chatSettings.system"), hint }, textarea);
  return { element, show: (system) => void (textarea.value = system) };
}

function numberField({ t }, parameter, saver) {
  const { name, min, max, step, isWhole } = parameter;
  const input = h("input", { type: "number", inputmode: isWhole ? "numeric" : "decimal", min, max, step });
  const labels = { label: t(`parameter.${name}`), hint: t(`parameterHint.${name}`) };
  const { element, setProblem } = createField({ id: `chat-${name}`, name, ...labels }, input);
  input.addEventListener("input", () => {
    // A number field that holds no number says "" and that its input is bad.
    const parsed = input.validity.badInput ? { problem: "number" } : parseParameter(parameter, input.value);
    setProblem("problem" in parsed ? t(`parameterProblem.${parsed.problem}`, { min, max }) : "");
    if ("value" in parsed) saver.setParameter(name, parsed.value);
  });
  return {
    element,
    show(_, parameters) {
      input.value = parameters[name] ?? "";
      setProblem("");
    },
    /** @param {number | undefined} value what the model does without a word */
    showDefault(value) {
      const otherwise = { max_tokens: t("parameter.untilFull"), seed: t("parameter.random") };
      setProp(input, "placeholder", value === undefined ? (otherwise[name] ?? t("parameter.modelDefault")) : String(value));
    },
    name,
  };
}

function stopsField({ t }, saver) {
  const textarea = h("textarea", { rows: 2 });
  textarea.addEventListener("input", () => saver.setParameter("stop", parseStops(textarea.value)));
  const labels = { label: t("parameter.stop"), hint: t("parameterHint.stop") };
  const { element } = createField({ id: "chat-stop", name: "stop", ...labels }, textarea);
  const lines = (stop) => (Array.isArray(stop) ? stop.join("\n") : (stop ?? ""));
  return { element, show: (_, { stop }) => void (textarea.value = lines(stop)) };
}

/** A model that is not loaded does not tell its defaults. */
async function showDefaults({ state, api }, numbers) {
  const { models, modelId } = state.get();
  for (const field of numbers) field.showDefault(undefined);
  if (models.find((model) => model.id === modelId)?.status.value !== "loaded") return;
  const props = await api.props(modelId).catch((error) => {
    if (error.name === "ApiError") return null;
    throw error;
  });
  if (props) for (const field of numbers) field.showDefault(props.default_generation_settings[field.name]);
}
