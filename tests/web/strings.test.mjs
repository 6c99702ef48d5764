// The page's words: the same keys in every language, each used, each use known.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import en from "../../clients/web/strings/en.js";
import ko from "../../clients/web/strings/ko.js";

const WEB = fileURLToPath(new URL("../../clients/web/", import.meta.url));
const NOT_OURS = /^(vendor|node_modules|strings)\//;
const KEY = /^[a-z][A-Za-z]*(\.[A-Za-z0-9_]+)+$/;

function sources() {
  return readdirSync(WEB, { recursive: true })
    .filter((name) => name.endsWith(".js") && !NOT_OURS.test(name))
    .map((name) => readFileSync(WEB + name, "utf8"));
}

// Keys as literals, and beginnings of keys in templates: `error.${code}`.
function uses() {
  const literals = new Set();
  const beginnings = new Set();
  for (const source of sources()) {
    for (const [, literal] of source.matchAll(/"([^"\n]+)"/g)) literals.add(literal);
    for (const [, beginning] of source.matchAll(/`([a-z][A-Za-z]*\.(?:[A-Za-z]+\.)*)\$\{[^`]*\}`/g)) beginnings.add(beginning);
  }
  return { literals, beginnings: [...beginnings] };
}

function places(text) {
  return [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort();
}

test("both languages have the same keys with the same places", () => {
  assert.deepEqual(Object.keys(en), Object.keys(ko));
  const different = Object.keys(ko).filter((key) => places(ko[key]).join() !== places(en[key]).join());
  assert.deepEqual(different, []);
});

test("no words stay unused", () => {
  const { literals, beginnings } = uses();
  const isUsed = (key) => literals.has(key) || beginnings.some((beginning) => key.startsWith(beginning));
  assert.deepEqual(Object.keys(ko).filter((key) => !isUsed(key)), []);
});

test("every key that a part asks for has words", () => {
  const unknown = sources().flatMap((source) =>
    [...source.matchAll(/\bt\(\s*"([^"]+)"/g)].map((match) => match[1]).filter((key) => KEY.test(key) && !(key in ko)),
  );
  assert.deepEqual(unknown, []);
});

test("no words are empty, and Korean ones are Korean", () => {
  assert.deepEqual(Object.keys(ko).filter((key) => !ko[key].trim() || !en[key].trim()), []);
  const unspoken = Object.keys(ko).filter((key) => !/[가-힣]/.test(ko[key]) && ko[key] !== en[key]);
  assert.deepEqual(unspoken, []);
});

test("Korean words stay in one register", () => {
  assert.deepEqual(Object.keys(ko).filter((key) => /(습|입|합|됩)니다|십시오/.test(ko[key])), []);
});
