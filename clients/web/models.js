/**
 * What the daemon's list of models means to a reader.
 *
 * Knows nothing about pages. Invariant: every model of the list is in exactly one group.
 */
import { formatBytes, formatNumber } from "./i18n.js";
import { problemText } from "./problems.js";

/** @typedef {any} Model an entry of GET /models, see docs/models-api.md */
/** @typedef {"loaded" | "here" | "elsewhere"} GroupName */

/**
 * @param {readonly Model[]} models
 * @returns {{ name: GroupName, models: Model[] }[]} groups without models are left out
 */
export function groupModels(models) {
  const groupOf = (model) => {
    if (["loaded", "loading", "unloading"].includes(model.status.value)) return "loaded";
    return model.in_cache || model.status.value === "downloading" ? "here" : "elsewhere";
  };
  return /** @type {GroupName[]} */ (["loaded", "here", "elsewhere"])
    .map((name) => ({ name, models: models.filter((model) => groupOf(model) === name) }))
    .filter((group) => group.models.length > 0);
}

/**
 * @param {Model} model
 * @returns {number | null} how far it is with what it is doing, from 0 to 1; null where nobody knows
 */
export function progressShare(model) {
  const { value, progress } = model.status;
  if (value === "downloading") {
    const { done, total } = byteCount(model);
    return total ? done / total : null;
  }
  if (value !== "loading" || progress?.current !== "weights") return null;
  return progress.value;
}

/**
 * @param {Model} model
 * @param {import("./i18n.js").Translate} t
 * @param {import("./i18n.js").Locale} locale
 * @returns {string} what it is doing, or why it is not loaded; "" where there is nothing to say
 */
export function statusText(model, t, locale) {
  const { value, progress, failed, error } = model.status;
  if (failed && error) return problemText(t, error, model.id);
  if (value === "downloading") {
    const { done, total } = byteCount(model);
    const size = total ? `${formatBytes(done, locale)} / ${formatBytes(total, locale)}` : formatBytes(done, locale);
    return t("model.downloading", { size });
  }
  if (value === "unloading") return t("model.unloading");
  if (value !== "loading") return "";
  const stage = progress?.current ?? "starting";
  return t(`model.loading.${stage}`, { percent: Math.floor((progress?.value ?? 0) * 100) });
}

/**
 * @param {Model} model
 * @param {import("./i18n.js").Translate} t
 * @param {import("./i18n.js").Locale} locale
 * @returns {string} how a loaded model is stored and what it takes, as far as the daemon tells
 */
export function factsText(model, t, locale) {
  // What the list told of a model while it was loaded is told no more.
  if (model.status.value !== "loaded") return "";
  const facts = [
    model.quantization,
    model.max_model_len && t("model.context", { count: model.max_model_len }),
    model.memory && formatBytes(model.memory.total_bytes, locale),
    model.device && model.device !== "cpu" && model.device.toUpperCase(),
    model.num_streams > 0 && t("model.numStreams", { count: model.num_streams }),
  ];
  return facts.filter(Boolean).join(" · ");
}

/**
 * @param {any} report the answer of GET /models/fit
 * @param {import("./i18n.js").Translate} t
 * @param {import("./i18n.js").Locale} locale
 * @returns {string}
 */
export function fitText(report, t, locale) {
  const usable = formatBytes(report.device.usable_bytes, locale);
  const form = report.forms.find((candidate) => candidate.form === report.best_form);
  if (!form) {
    const smallest = Math.min(...report.forms.map((candidate) => candidate.total_bytes));
    return t("model.doesNotFit", { needed: formatBytes(smallest, locale), usable });
  }
  return t("model.fits", { form: form.form, needed: formatBytes(form.total_bytes, locale), usable });
}

/** @param {number | null} share @param {import("./i18n.js").Locale} locale @returns {string} */
export function percentText(share, locale) {
  return share === null ? "" : `${formatNumber(Math.floor(share * 100), locale)}%`;
}

/** @returns {{ done: number, total: number | null }} over everything that is downloaded for the model */
function byteCount(model) {
  const counts = Object.values(model.status.progress ?? {});
  const sum = (key) => counts.reduce((total, count) => total + (count[key] ?? 0), 0);
  return { done: sum("done"), total: counts.every((count) => count.total) ? sum("total") : null };
}
