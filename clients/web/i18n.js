/**
 * The page's words, in the reader's language.
 *
 * Knows nothing about where they are shown. Invariants: every language has the same keys, and none that
 * is not used (tests/web/strings.test.mjs compares); only one language's words are loaded.
 */

/** @typedef {"ko" | "en"} Locale */
/** @typedef {(key: string, params?: Record<string, string | number>) => string} Translate */

/** @type {readonly Locale[]} */
export const LOCALES = Object.freeze(["ko", "en"]);

/**
 * The language to begin with: what was chosen here before, else the first of the browser's that there is,
 * else Korean.
 *
 * @param {unknown} chosen
 * @param {readonly string[]} languages as navigator.languages
 * @returns {Locale}
 */
export function detectLocale(chosen, languages) {
  const wanted = [chosen, ...languages].map((language) => String(language).split("-")[0].toLowerCase());
  return /** @type {Locale} */ (wanted.find((language) => LOCALES.includes(/** @type {Locale} */ (language))) ?? "ko");
}

/**
 * The function that looks words up. Numbers among `params` are written with separators. A key that is
 * missing stands for itself, so that a mistake is seen and the page goes on.
 *
 * @param {Locale} locale
 * @returns {Promise<Translate>} when the language's words are loaded
 */
export async function createTranslate(locale) {
  const { default: words } = await import(`./strings/${locale}.js`);
  return (key, params = {}) =>
    (Object.hasOwn(words, key) ? words[key] : key).replace(/\{(\w+)\}/g, (place, name) => {
      const value = params[name];
      if (value === undefined) return place;
      return typeof value === "number" ? formatNumber(value, locale) : value;
    });
}

/**
 * @param {number} value
 * @param {Locale} locale
 * @param {number} [maxDecimals]
 * @returns {string}
 */
export function formatNumber(value, locale, maxDecimals = 1) {
  return new Intl.NumberFormat(locale, { maximumFractionDigits: maxDecimals }).format(value);
}

/**
 * @param {number} sizeBytes
 * @param {Locale} locale
 * @returns {string} in the largest unit that it fills, as the terminal writes it: 13.5 GiB
 */
export function formatBytes(sizeBytes, locale) {
  const units = ["B", "KiB", "MiB", "GiB"];
  const power = Math.min(Math.floor(Math.log2(Math.max(sizeBytes, 1)) / 10), units.length - 1);
  return `${formatNumber(sizeBytes / 2 ** (10 * power), locale)} ${units[power]}`;
}
