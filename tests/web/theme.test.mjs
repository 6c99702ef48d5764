// The palette as it is written in theme.css: readable in both themes.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { followTheme, paintedTheme } from "../../clients/web/theme.js";

const css = readFileSync(new URL("../../clients/web/styles/theme.css", import.meta.url), "utf8");

function palette(theme) {
  const block = css.match(new RegExp(`:root\\[data-theme="${theme}"\\] \\{([^}]*)\\}`))[1];
  return Object.fromEntries([...block.matchAll(/--([\w-]+): (#[0-9a-f]{6});/g)].map((match) => match.slice(1)));
}

// Relative luminance and contrast ratio as WCAG 2.2 defines them.
function luminance(hex) {
  const [red, green, blue] = [1, 3, 5].map((start) => {
    const share = Number.parseInt(hex.slice(start, start + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(first, second) {
  const [darker, lighter] = [luminance(first), luminance(second)].sort((a, b) => a - b);
  return (lighter + 0.05) / (darker + 0.05);
}

const GROUNDS = ["page", "sunken", "surface", "raised", "hover", "user", "accent-soft"].map((name) => `color-${name}`);
const READABLE = [
  ...GROUNDS.flatMap((ground) => [["color-text", ground], ["color-muted", ground], ["color-accent", ground]]),
  ["color-on-accent", "color-accent"],
  ["color-on-accent", "color-accent-hover"],
  ...["danger", "warning", "success"].flatMap((kind) => [
    [`color-${kind}`, `color-${kind}-soft`],
    [`color-${kind}`, "color-surface"],
    [`color-${kind}`, "color-raised"],
    ["color-text", `color-${kind}-soft`],
  ]),
  ...["keyword", "string", "number", "comment", "function", "type"].map((kind) => [`code-${kind}`, "color-code"]),
  ["color-text", "color-code"],
  ["color-muted", "color-code"],
];

for (const theme of ["light", "dark"]) {
  test(`text has a contrast of 4.5 on every ground of the ${theme} theme`, () => {
    const colours = palette(theme);
    const faint = READABLE.filter(([text, ground]) => contrast(colours[text], colours[ground]) < 4.5).map(
      ([text, ground]) => `${text} on ${ground}: ${contrast(colours[text], colours[ground]).toFixed(2)}`,
    );
    assert.deepEqual(faint, []);
  });

  test(`outlines of controls have a contrast of 3 on every ground of the ${theme} theme`, () => {
    const colours = palette(theme);
    const faint = GROUNDS.filter((ground) => contrast(colours["color-outline"], colours[ground]) < 3);
    assert.deepEqual(faint, []);
  });
}

test("both themes define the same colours", () => {
  assert.deepEqual(Object.keys(palette("light")).sort(), Object.keys(palette("dark")).sort());
});

test("the system's theme is followed while it is chosen, and only then", () => {
  const listeners = { query: null, state: null };
  const query = {
    matches: true,
    addEventListener: (_, listener) => (listeners.query = listener),
    removeEventListener: () => (listeners.query = null),
  };
  const root = { dataset: {} };
  let theme = "system";
  const state = {
    get: () => ({ theme }),
    subscribe: (_, listener) => {
      listeners.state = listener;
      return () => (listeners.state = null);
    },
  };
  const stop = followTheme(state, { matchMedia: () => query, document: { documentElement: root } });
  assert.equal(root.dataset.theme, "dark");
  query.matches = false;
  listeners.query();
  assert.equal(root.dataset.theme, "light");
  theme = "dark";
  listeners.state();
  assert.equal(root.dataset.theme, "dark");
  stop();
  assert.deepEqual(listeners, { query: null, state: null });
});

test("a chosen theme wins over the system's", () => {
  assert.equal(paintedTheme("light", true), "light");
  assert.equal(paintedTheme("dark", false), "dark");
});
