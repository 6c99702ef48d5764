/**
 * Which theme the page is painted in.
 *
 * Knows nothing about colours, which are in styles/theme.css. Invariant: the root's data-theme is
 * always "light" or "dark"; what "system" means is followed while the page is open.
 */

/** @typedef {"system" | "light" | "dark"} Theme */

/** @type {readonly Theme[]} */
export const THEMES = Object.freeze(["system", "light", "dark"]);

/**
 * Paint the page in the state's theme, now and whenever it or the system's preference changes.
 *
 * @param {{get(): {theme: Theme}, subscribe(keys: string[], listener: () => void): () => void}} state
 * @param {Window} view the page's window
 * @returns {() => void} stops following
 */
export function followTheme(state, view) {
  const systemIsDark = view.matchMedia("(prefers-color-scheme: dark)");
  const paint = () => {
    view.document.documentElement.dataset.theme = paintedTheme(state.get().theme, systemIsDark.matches);
  };
  paint();
  systemIsDark.addEventListener("change", paint);
  const unsubscribe = state.subscribe(["theme"], paint);
  return () => {
    systemIsDark.removeEventListener("change", paint);
    unsubscribe();
  };
}

/**
 * @param {Theme} theme what the person chose
 * @param {boolean} isSystemDark
 * @returns {"light" | "dark"}
 */
export function paintedTheme(theme, isSystemDark) {
  if (theme === "system") return isSystemDark ? "dark" : "light";
  return theme;
}
