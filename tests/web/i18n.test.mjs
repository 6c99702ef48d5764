// How words are looked up and numbers are written.
import assert from "node:assert/strict";
import { test } from "node:test";

import { LOCALES, createTranslate, detectLocale, formatBytes } from "../../clients/web/i18n.js";

test("the language that was chosen wins over the browser's", () => {
  assert.equal(detectLocale("en", ["ko-KR"]), "en");
});

test("the browser's first language that there is counts, else Korean", () => {
  assert.equal(detectLocale(undefined, ["fr-FR", "en-GB", "ko"]), "en");
  assert.equal(detectLocale(null, ["ko-KR", "en"]), "ko");
  assert.equal(detectLocale("de", ["ja"]), "ko");
});

test("places are filled, with separators in numbers", async () => {
  const t = await createTranslate("ko");
  assert.equal(t("sidebar.numResults", { count: 12345 }), "대화 12,345개를 찾았어요.");
  assert.equal(t("sidebar.deleted", { title: "$& {title}" }), "‘$& {title}’ 대화를 삭제했어요.");
});

test("every language has words of its own", async () => {
  const words = await Promise.all(LOCALES.map(async (locale) => (await createTranslate(locale))("action.undo")));
  assert.deepEqual(words, ["되돌리기", "Undo"]);
});

test("a key without words stands for itself", async () => {
  const t = await createTranslate("ko");
  assert.equal(t("no.such"), "no.such");
  assert.equal(t("toString"), "toString");
});

test("sizes are in the largest unit that they fill", () => {
  assert.equal(formatBytes(0, "ko"), "0 B");
  assert.equal(formatBytes(1536, "ko"), "1.5 KiB");
  assert.equal(formatBytes(13.5 * 2 ** 30, "en"), "13.5 GiB");
  assert.equal(formatBytes(3000 * 2 ** 30, "en"), "3,000 GiB");
});
