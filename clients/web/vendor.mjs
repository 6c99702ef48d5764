/**
 * Copies other people's code beside the page, as ES modules with their licences.
 *
 * Runs after `npm ci` in this folder. Knows nothing about how the page uses them. Invariant: vendor/ appears
 * whole or not at all, and holds nothing that the lockfile does not name.
 */

import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const PACKAGES = join(HERE, "node_modules");
const TARGET = join(HERE, "vendor");
const UNFINISHED = join(HERE, "vendor.unfinished");

const HIGHLIGHTER = "@highlightjs/cdn-assets";
/** Languages that the page highlights; each is loaded when a code block first names it. */
const LANGUAGES = [
  "bash", "c", "cpp", "csharp", "css", "diff", "dockerfile", "go", "ini", "java", "javascript", "json",
  "kotlin", "markdown", "php", "python", "ruby", "rust", "sql", "swift", "typescript", "xml", "yaml",
];

/** Files that are ES modules already: package, file, name here. */
const MODULES = [
  ["marked", "lib/marked.esm.js", "marked.js"],
  [HIGHLIGHTER, "es/core.min.js", "highlight.js"],
  ...LANGUAGES.map((name) => [HIGHLIGHTER, `es/languages/${name}.min.js`, `languages/${name}.js`]),
];
/** Files that are minified for `<script>` alone; half the size of the ES modules beside them. */
const UNIVERSAL = [
  ["dompurify", "dist/purify.min.js", "purify.js"],
  ["katex", "dist/katex.min.js", "katex.js"],
];
const LICENCES = [
  ["marked", "LICENSE"],
  ["dompurify", "LICENSE"],
  ["katex", "LICENSE"],
  [HIGHLIGHTER, "LICENSE"],
];

/** @param {string} code @returns {string} without a reference to a source map, which is not copied */
function withoutSourceMap(code) {
  return code.replace(/^\/\/# sourceMappingURL=.*$/gm, "").trimEnd() + "\n";
}

/** @param {string} code a UMD module @returns {string} an ES module whose default export is its value */
function asModule(code) {
  return `const module = { exports: {} };\nconst exports = module.exports;\n${code}export default module.exports;\n`;
}

/** @param {string} packageName @param {string} file @returns {Promise<string>} */
async function source(packageName, file) {
  return readFile(join(PACKAGES, packageName, file), "utf8");
}

async function vendor() {
  await rm(UNFINISHED, { recursive: true, force: true });
  await mkdir(join(UNFINISHED, "languages"), { recursive: true });
  for (const [packageName, file, name] of MODULES) {
    await writeFile(join(UNFINISHED, name), withoutSourceMap(await source(packageName, file)));
  }
  for (const [packageName, file, name] of UNIVERSAL) {
    await writeFile(join(UNFINISHED, name), asModule(withoutSourceMap(await source(packageName, file))));
  }
  for (const [packageName, file] of LICENCES) {
    const name = packageName.replace("@", "").replace("/", "-");
    await writeFile(join(UNFINISHED, `${name}.LICENSE.txt`), await source(packageName, file));
  }
  await rm(TARGET, { recursive: true, force: true });
  await rename(UNFINISHED, TARGET);
}

await vendor();
