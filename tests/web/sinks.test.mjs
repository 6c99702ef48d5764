// The page builds nodes: text becomes markup in one place only, and nothing is styled or run from a string.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const WEB = fileURLToPath(new URL("../../clients/web/", import.meta.url));
const NOT_OURS = /^(vendor|node_modules)\//;
const SINKS =
  /\.(?:inner|outer)HTML|insertAdjacentHTML|document\.write|createContextualFragment|setHTMLUnsafe|parseFromString|\beval\(|new Function\b|setAttribute\("(?:style|on)|javascript:/;

const sources = readdirSync(WEB, { recursive: true }).filter((name) => /\.(js|html)$/.test(name) && !NOT_OURS.test(name));

test("no source of the page uses a door that text becomes markup or code through", () => {
  assert.ok(sources.includes("markdown/sanitizer.js"));
  assert.deepEqual(sources.filter((name) => SINKS.test(readFileSync(WEB + name, "utf8"))), []);
});

test("no source of the page has inline styles, scripts or addresses of others", () => {
  const inline = / style="|<script>| on[a-z]+="|(?:src|href)="https?:/;
  assert.deepEqual(sources.filter((name) => inline.test(readFileSync(WEB + name, "utf8"))), []);
});

test("the sanitizer is asked by the drawing of markdown alone", () => {
  const users = sources.filter((name) => /createSanitizer\(/.test(readFileSync(WEB + name, "utf8")));
  assert.deepEqual(users.sort(), ["markdown/drawing.js", "markdown/sanitizer.js"]);
});
