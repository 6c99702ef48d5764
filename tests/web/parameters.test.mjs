// The parameters of a conversation: what is taken from a field.
import assert from "node:assert/strict";
import { test } from "node:test";

import { PARAMETERS, parseParameter, parseStops, withParameter } from "../../clients/web/parameters.js";
import { contextUse } from "../../clients/web/view/gauges.js";
import { SHORTCUTS, matching } from "../../clients/web/view/shortcuts.js";

const parameter = (name) => PARAMETERS.find((candidate) => candidate.name === name);

test("a number in its range is taken, and an empty field is none", () => {
  assert.deepEqual(parseParameter(parameter("temperature"), "0"), { value: 0 });
  assert.deepEqual(parseParameter(parameter("top_p"), "0.755"), { value: 0.755 });
  assert.deepEqual(parseParameter(parameter("seed"), " "), { value: undefined });
});

test("what the daemon would refuse says why", () => {
  assert.deepEqual(parseParameter(parameter("temperature"), "2.1"), { problem: "range" });
  assert.deepEqual(parseParameter(parameter("top_p"), "0"), { problem: "range" });
  assert.deepEqual(parseParameter(parameter("max_tokens"), "1.5"), { problem: "whole" });
  assert.deepEqual(parseParameter(parameter("min_p"), "x"), { problem: "number" });
});

test("stop strings are lines, composed, four at most", () => {
  assert.deepEqual(parseStops(`${"끝".normalize("NFD")}\n\n끝\n a `), ["끝", " a "]);
  assert.equal(parseStops("1\n2\n3\n4\n5").length, 4);
  assert.equal(parseStops(" \n"), undefined);
});

test("a parameter without a value is taken away", () => {
  assert.deepEqual(withParameter({ seed: 1, top_k: 2 }, "seed", undefined), { top_k: 2 });
  assert.deepEqual(withParameter({}, "seed", 0), { seed: 0 });
});

test("the context in use is what was counted last in the open branch", () => {
  const messages = {
    q: { id: "q", parentId: null },
    a: { id: "a", parentId: "q", stats: { numPromptTokens: 10, numTokens: 5 } },
    q2: { id: "q2", parentId: "a" },
  };
  const state = { conversation: { leafId: "q2", messages }, streaming: null, models: [{ id: "m", max_model_len: 100 }], modelId: "m" };
  assert.deepEqual(contextUse(state), { numUsed: 15, limit: 100 });
  assert.deepEqual(contextUse({ ...state, streaming: { numTokens: 3 } }), { numUsed: 18, limit: 100 });
  assert.deepEqual(contextUse({ ...state, conversation: { leafId: null, messages: {} }, modelId: "x" }), { numUsed: null, limit: null });
});

const press = (code, held = {}) => ({ code, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...held });

test("shortcuts go by the key's place, so the Hangul layout changes nothing", () => {
  assert.equal(matching({ ...press("KeyK", { ctrlKey: true }), key: "ㅏ" }, false).name, "search");
  assert.equal(matching(press("KeyK", { metaKey: true }), true).name, "search");
  assert.equal(matching(press("KeyK"), false), undefined);
  assert.equal(matching(press("KeyK", { ctrlKey: true, metaKey: true }), false), undefined);
  assert.equal(matching(press("Comma", { ctrlKey: true, shiftKey: true }), false).name, "chatSettings");
});

test("no two shortcuts are the same keys", () => {
  const keys = SHORTCUTS.map(({ code, modifiers }) => `${modifiers}+${code}`);
  assert.equal(new Set(keys).size, keys.length);
});
