/**
 * Small figures under the box: how fast the answer comes, how full the context is, what the draft costs.
 *
 * Knows nothing about where figures come from. Invariant: a figure that is not known is not shown.
 */
import { h, setProp } from "../dom.js";
import { numGraphemes } from "../graphemes.js";
import { formatNumber } from "../i18n.js";

const COUNT_DELAY_MS = 400;
/** From here on the context is shown as nearly full, and as full. */
const WARN_SHARE = 0.8;
const FULL_SHARE = 0.95;

/**
 * @param {any} app
 * @returns {HTMLElement}
 */
export function createGauges(app) {
  return h("div", { class: "gauges" }, draftGauge(app), speedGauge(app), contextGauge(app));
}

function speedGauge({ state, t }) {
  const element = h("span", { class: "gauge gauge-speed", title: t("gauge.speedHint"), hidden: true });
  const show = () => {
    const { streaming, locale } = state.get();
    // An answer that waits has no speed.
    const { ttftS = null, tokensPerS = null } = streaming?.waitingFor ? {} : (streaming ?? {});
    const figures = [
      ttftS !== null && t("gauge.ttft", { seconds: formatNumber(ttftS, locale, 2) }),
      tokensPerS !== null && t("gauge.speed", { speed: formatNumber(tokensPerS, locale, 1) }),
    ].filter(Boolean);
    element.hidden = figures.length === 0;
    element.textContent = figures.join(" · ");
  };
  state.subscribe(["streaming"], show);
  return element;
}

function contextGauge({ state, t }) {
  const bar = h("span", { class: "context-fill" });
  const text = h("span", { class: "context-text" });
  const element = h(
    "span",
    { class: "gauge gauge-context", role: "meter", "aria-label": t("gauge.context"), "aria-valuemin": 0, hidden: true },
    h("span", { class: "context-bar" }, bar),
    text,
  );
  const show = () => {
    const { numUsed, limit } = contextUse(state.get());
    element.hidden = numUsed === null || limit === null;
    if (element.hidden) return;
    const share = Math.min(numUsed / limit, 1);
    const words = t(share >= FULL_SHARE ? "gauge.contextFull" : "gauge.contextUse", { used: numUsed, limit });
    bar.style.width = `${share * 100}%`;
    element.classList.toggle("is-near", share >= WARN_SHARE && share < FULL_SHARE);
    element.classList.toggle("is-full", share >= FULL_SHARE);
    text.textContent = words;
    setProp(element, "title", share >= WARN_SHARE ? t("gauge.contextHint") : t("gauge.context"));
    setProp(element, "aria-valuemax", limit);
    setProp(element, "aria-valuenow", Math.min(numUsed, limit));
    setProp(element, "aria-valuetext", words);
  };
  state.subscribe(["streaming", "conversation", "models", "modelId"], show);
  show();
  return element;
}

/**
 * How many tokens the model has read and written in the open branch, as far as it was counted.
 *
 * @param {any} state
 * @returns {{ numUsed: number | null, limit: number | null }}
 */
export function contextUse({ conversation, streaming, models, modelId }) {
  const limit = models.find((model) => model.id === modelId)?.max_model_len ?? null;
  let message = conversation?.messages[conversation.leafId];
  while (message && !message.stats?.numPromptTokens) message = conversation.messages[message.parentId];
  const { numPromptTokens = null, numTokens = 0 } = message?.stats ?? {};
  if (numPromptTokens === null) return { numUsed: null, limit };
  // An answer that goes on counts what it had before, too.
  return { numUsed: numPromptTokens + numTokens + (streaming?.numTokens ?? 0), limit };
}

function draftGauge(app) {
  const { state, t } = app;
  const element = h("span", { class: "gauge gauge-draft", title: t("gauge.draftHint"), hidden: true });
  const count = createDraftCount(app, (numTokens, text) => {
    element.hidden = numTokens === null;
    if (numTokens === null) return;
    const perCharacter = formatNumber(numTokens / numGraphemes(text), state.get().locale, 2);
    element.textContent = t("gauge.draft", { tokens: numTokens, perCharacter });
  });
  document.addEventListener("input", ({ target }) => {
    if (target.id === "composer-input") count(target.value);
  });
  return element;
}

/** Asks the daemon when typing pauses; an answer that comes late is not told. */
function createDraftCount({ state, api }, onCount) {
  let timer = null;
  let numAsked = 0;

  async function ask(text, number) {
    const { models, modelId, connection, needsKey } = state.get();
    const isLoaded = models.find((model) => model.id === modelId)?.status.value === "loaded";
    if (!isLoaded || connection !== "ready" || needsKey) return onCount(null, text);
    const answer = await api.tokenize(text, modelId).catch((error) => {
      if (error.name === "ApiError") return null;
      throw error;
    });
    if (number === numAsked) onCount(answer?.count ?? null, text);
  }

  return (draft) => {
    const text = draft.trim().normalize("NFC");
    clearTimeout(timer);
    numAsked += 1;
    const number = numAsked;
    if (text === "") onCount(null, text);
    else timer = setTimeout(() => void ask(text, number), COUNT_DELAY_MS);
  };
}
