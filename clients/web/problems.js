/**
 * What the daemon refused, in the reader's words, with what to do about it.
 *
 * Knows nothing about where it happened. Invariant: there is always a sentence; what has no words of its
 * own is told in the daemon's.
 */
/**
 * @param {import("./i18n.js").Translate} t
 * @param {{ code?: string | null, message?: string, retryAfterS?: number | null }} error the daemon's error
 *   object, or an ApiError
 * @param {string} [model] that it is about
 * @returns {string}
 */
export function problemText(t, { code, message = "", retryAfterS }, model = "") {
  const key = `error.${code}`;
  const params = { model, said: message, seconds: retryAfterS ?? 5 };
  const words = t(key, params);
  return words === key ? t("error.other", params) : words;
}
