/**
 * Sets formulas as MathML; KaTeX is loaded when the first one is met.
 *
 * Knows nothing about where formulas come from. Invariant: a formula that cannot be set, or not yet, stays
 * readable as its TeX.
 */

const UNSET = ".formula:not(:has(> math))";
const MAX_KEPT = 300;
/** What KaTeX may do: no links, no endless macros, no boxes as large as the page. */
const OPTIONS = { output: "mathml", throwOnError: true, trust: false, strict: "ignore", maxExpand: 1000, maxSize: 20 };

/**
 * @param {{ formula(mathml: string): DocumentFragment }} sanitizer
 * @param {() => Promise<any>} load brings KaTeX; a rejection leaves TeX for good
 * @returns {{ set(root: ParentNode, container: Element): void }} sets the formulas in `root` now, or those in
 *   `container` once they can be
 */
export function createMaths(sanitizer, load) {
  const kept = new Map();
  const waiting = new Set();
  let katex = null;
  let loading = null;

  function setAll(root) {
    for (const element of root.querySelectorAll(UNSET)) {
      const math = formula(element.textContent, element.classList.contains("formula-display"));
      if (math) element.replaceChildren(math.cloneNode(true));
      else element.classList.add("formula-failed");
    }
  }

  function formula(tex, isDisplay) {
    const key = `${isDisplay}${tex}`;
    if (!kept.has(key)) {
      if (kept.size >= MAX_KEPT) kept.delete(kept.keys().next().value);
      kept.set(key, sanitizer.formula(mathml(katex, tex, isDisplay)).querySelector("math"));
    }
    return kept.get(key);
  }

  function begin() {
    loading ??= load().then(
      (library) => {
        katex = library;
        for (const container of waiting) setAll(container);
        waiting.clear();
      },
      () => waiting.clear(),
    );
  }

  return {
    set(root, container) {
      if (!root.querySelector(UNSET)) return;
      if (katex) {
        setAll(root);
        return;
      }
      waiting.add(container);
      begin();
    },
  };
}

function mathml(katex, tex, isDisplay) {
  try {
    return katex.renderToString(tex, { ...OPTIONS, displayMode: isDisplay });
  } catch {
    // Whatever a model's TeX does to KaTeX, from a typing error to exhausting the stack: it stays text.
    return "";
  }
}
