/**
 * Colours code, when there is time; the highlighter and each language are loaded when first met.
 *
 * Knows nothing about markdown. Invariant: the text of the code never changes, and no HTML is made of it.
 */

/** Beyond this the colours are not worth the time. */
const MAX_LENGTH = 30_000;

const ALIASES = Object.freeze({
  "c#": "csharp", "c++": "cpp", cc: "cpp", cs: "csharp", docker: "dockerfile", golang: "go", h: "c", hpp: "cpp",
  html: "xml", js: "javascript", jsonc: "json", jsx: "javascript", kt: "kotlin", md: "markdown", patch: "diff",
  py: "python", python3: "python", rb: "ruby", rs: "rust", sh: "bash", shell: "bash", svg: "xml", toml: "ini",
  ts: "typescript", tsx: "typescript", yml: "yaml", zsh: "bash",
});
/** What vendor.mjs copies. */
export const LANGUAGES = Object.freeze([
  "bash", "c", "cpp", "csharp", "css", "diff", "dockerfile", "go", "ini", "java", "javascript", "json", "kotlin",
  "markdown", "php", "python", "ruby", "rust", "sql", "swift", "typescript", "xml", "yaml",
]);
const ENTITIES = Object.freeze({ "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" });

/**
 * @param {(name: string) => Promise<any>} load brings vendor/NAME.js
 * @param {(task: () => void) => void} [whenIdle]
 * @returns {(root: ParentNode) => void} colours the code in `root` some time later; where the files are
 *   missing it stays as it is
 */
export function createHighlighter(load, whenIdle = idle) {
  const known = new Map();
  let library = null;

  function language(name) {
    library ??= load("highlight");
    if (!known.has(name)) {
      const grammar = load(`languages/${name}`);
      known.set(name, Promise.all([library, grammar]).then(([hljs, made]) => register(hljs, name, made)));
    }
    return known.get(name);
  }

  async function colour(code, name) {
    const hljs = await language(name).catch(() => null);
    if (!hljs) return;
    whenIdle(() => {
      const text = code.textContent;
      if (!code.isConnected || code.childElementCount > 0) return;
      code.replaceChildren(spans(hljs.highlight(text, { language: name, ignoreIllegals: true }).value));
    });
  }

  return (root) => {
    for (const code of root.querySelectorAll("pre > code[class]")) {
      const name = languageName(code);
      if (name && code.textContent.length <= MAX_LENGTH) void colour(code, name);
    }
  };
}

/** @param {Element} code @returns {string | null} a language that can be had */
function languageName(code) {
  const said = code.className.replace(/^language-/, "");
  const name = Object.hasOwn(ALIASES, said) ? ALIASES[said] : said;
  return LANGUAGES.includes(name) ? name : null;
}

function register(hljs, name, grammar) {
  hljs.registerLanguage(name, grammar);
  return hljs;
}

function idle(task) {
  if ("requestIdleCallback" in window) window.requestIdleCallback(task, { timeout: 1000 });
  else setTimeout(task, 50);
}

/**
 * The highlighter's spans, as nodes. Its output has spans with a class, text and five entities only.
 *
 * @param {string} html
 * @returns {DocumentFragment}
 */
export function spans(html) {
  const root = document.createDocumentFragment();
  const path = [root];
  for (const [, opening, closing, text] of html.matchAll(/<span class="([^"]*)">|(<\/span>)|([^<]+)/g)) {
    if (closing) path.pop();
    else if (text) path.at(-1).append(text.replace(/&(?:amp|lt|gt|quot|#x27);/g, (entity) => ENTITIES[entity]));
    else {
      const span = document.createElement("span");
      span.className = opening;
      path.at(-1).append(span);
      path.push(span);
    }
  }
  return root;
}
