// What the daemon tells of its models, and which of them answers.
import assert from "node:assert/strict";
import { test } from "node:test";

import { chosenModel, withEvent } from "../../clients/web/connection.js";

const model = (id, value, in_cache = true) => ({ id, in_cache, status: { value } });

test("an event changes its model's status alone", () => {
  const models = [model("a", "unloaded"), model("b", "loaded")];
  const progress = { current: "weights", value: 0.5 };
  const loading = withEvent(models, { model: "a", event: "model_status", data: { status: "loading", progress } });
  assert.deepEqual(loading, [{ ...models[0], status: { value: "loading", progress } }, models[1]]);
  assert.equal(loading[1], models[1]);
});

test("a model that was loaded comes with all that is known of it", () => {
  const info = { ...model("a", "loaded"), max_model_len: 4096 };
  assert.deepEqual(withEvent([model("a", "loading")], { model: "a", event: "model_status", data: { status: "loaded", info } }), [info]);
});

test("a download's bytes are its progress", () => {
  const data = { a: { done: 1, total: 2 } };
  const [entry] = withEvent([model("a", "downloading", false)], { model: "a", event: "download_progress", data });
  assert.deepEqual(entry.status, { value: "downloading", progress: data });
});

test("what an event does not tell is asked for", () => {
  const models = [model("a", "loaded")];
  assert.equal(withEvent(models, { model: "new", event: "model_status", data: { status: "loading" } }), null);
  assert.equal(withEvent(models, { model: "a", event: "model_remove" }), null);
  assert.equal(withEvent(models, { model: "a", event: "download_failed", data: { error: {} } }), null);
});

test("the chosen model stays chosen while it exists, else one that needs no wait is taken", () => {
  const models = [model("away", "unloaded", false), model("cold", "unloaded"), model("coming", "loading"), model("warm", "loaded")];
  assert.equal(chosenModel(models, "cold"), "cold");
  assert.equal(chosenModel(models, "gone"), "warm");
  assert.equal(chosenModel(models.slice(0, 3), null), "coming");
  assert.equal(chosenModel(models.slice(0, 2), null), "cold");
  assert.equal(chosenModel(models.slice(0, 1), null), null);
  assert.equal(chosenModel([], "any"), null);
});
