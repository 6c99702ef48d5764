// What the daemon's list of models means to a reader.
import assert from "node:assert/strict";
import { test } from "node:test";

import { createTranslate } from "../../clients/web/i18n.js";
import { factsText, fitText, groupModels, progressShare, statusText } from "../../clients/web/models.js";

const t = await createTranslate("ko");
const model = (id, status, rest = {}) => ({ id, in_cache: true, num_streams: 0, memory: null, quantization: null, device: null, max_model_len: null, ...rest, status });
const words = (status) => statusText(model("m", status), t, "ko");

test("every model is in one group, by where it is", () => {
  const models = [
    model("far", { value: "unloaded" }, { in_cache: false }),
    model("coming", { value: "downloading" }, { in_cache: false }),
    model("here", { value: "unloaded" }),
    model("up", { value: "loaded" }),
    model("rising", { value: "loading" }),
    model("leaving", { value: "unloading" }),
  ];
  const groups = groupModels(models).map((group) => [group.name, group.models.map(({ id }) => id)]);
  assert.deepEqual(groups, [["loaded", ["up", "rising", "leaving"]], ["here", ["coming", "here"]], ["elsewhere", ["far"]]]);
});

test("a load says its stage, and how far its weights are", () => {
  const loading = (current, value) => ({ value: "loading", progress: { stages: [], current, value } });
  assert.equal(words(loading("weights", 0.456)), "올리고 있어요. 45%");
  assert.equal(words(loading("waiting", 0)), "메모리가 비기를 기다리고 있어요.");
  assert.equal(words({ value: "loading" }), "올릴 준비를 하고 있어요.");
  assert.equal(progressShare(model("m", loading("weights", 0.456))), 0.456);
  assert.equal(progressShare(model("m", loading("starting", 0))), null);
});

test("a download says its bytes, also before the total is known", () => {
  const downloading = (total) => ({ value: "downloading", progress: { m: { done: 2 ** 20, total } } });
  assert.equal(words(downloading(2 ** 30)), "내려받고 있어요. 1 MiB / 1 GiB");
  assert.equal(words(downloading(null)), "내려받고 있어요. 1 MiB");
  assert.equal(progressShare(model("m", downloading(2 ** 22))), 0.25);
  assert.equal(progressShare(model("m", downloading(null))), null);
});

test("a failed load says what to do, and an unknown failure what the daemon said", () => {
  const failed = (code) => ({ value: "unloaded", failed: true, error: { code, message: "It needs 9 GiB.", type: "", param: null } });
  assert.match(words(failed("model_does_not_fit")), /^‘m’ 모델이 메모리보다 커서 .* \(It needs 9 GiB\.\)$/);
  assert.match(words(failed("brand_new")), /It needs 9 GiB\./);
  assert.equal(words({ value: "loaded" }), "");
});

test("facts are those that the daemon tells", () => {
  assert.equal(factsText(model("m", { value: "loaded" }), t, "ko"), "");
  const loaded = { quantization: "nf4", max_model_len: 32768, memory: { total_bytes: 6.25 * 2 ** 30 }, device: "cuda", num_streams: 2 };
  assert.equal(factsText(model("m", { value: "loaded" }, loaded), t, "ko"), "nf4 · 컨텍스트 32,768 · 6.3 GiB · CUDA · 답하는 중 2");
  assert.equal(factsText(model("m", { value: "unloaded" }, loaded), t, "ko"), "");
});

test("whether a model fits is said with what it needs", () => {
  const form = (name, gib) => ({ form: name, total_bytes: gib * 2 ** 30 });
  const report = { device: { usable_bytes: 10 * 2 ** 30 }, forms: [form("fp16", 20), form("nf4", 6)], best_form: "nf4" };
  assert.match(fitText(report, t, "ko"), /^들어가요. nf4 형식으로 6 GiB.*10 GiB/);
  assert.match(fitText({ ...report, best_form: null }, t, "ko"), /^들어가지 않아요. 적어도 6 GiB.*10 GiB/);
});
