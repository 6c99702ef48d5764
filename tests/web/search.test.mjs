// Finding Korean text, and cutting it.
import assert from "node:assert/strict";
import { test } from "node:test";

import { numGraphemes, truncate, truncateStart } from "../../clients/web/graphemes.js";
import { groupByDay } from "../../clients/web/store/groups.js";
import { createMatcher, isVague } from "../../clients/web/store/search.js";

const finds = (query, text) => createMatcher(query)(text)?.match ?? null;

test("initial consonants find syllables", () => {
  assert.equal(finds("ㅎㄱ", "오늘은 한글날"), "한글");
  assert.equal(finds("ㅎㄱㄴ", "한글"), null);
  assert.equal(finds("ㄲ", "토끼"), "끼");
  assert.equal(finds("한ㄱ", "한글"), "한글");
});

test("consonants that the keyboard joined are two", () => {
  assert.equal(finds("ㄳ", "감사합니다"), "감사");
  assert.equal(finds("ㅄ", "부산"), "부산");
});

test("a syllable that is still open finds its closed ones, at the end only", () => {
  assert.equal(finds("하", "한글"), "한");
  assert.equal(finds("하글", "한글"), null);
  assert.equal(finds("한그", "한글"), "한글");
  assert.equal(finds("한", "하늘"), null);
});

test("decomposed Hangul and letters' cases are found", () => {
  assert.equal(finds("한글", "한글".normalize("NFD")), "한글");
  assert.equal(finds("한글".normalize("NFD"), "한글"), "한글");
  assert.equal(finds("QWEN", "qwen2"), "qwen");
});

test("characters with a meaning in expressions mean themselves", () => {
  for (const query of ["a.b", "(x)", "[1]", "a+b", "$5", "c\\d", "1-2", "{}", "a|b", "^", "?"]) {
    assert.equal(finds(query, `x ${query} y`), query, query);
  }
  assert.equal(finds("a.b", "axb"), null);
});

test("blanks find any blanks, and alone nothing", () => {
  assert.equal(finds("김 치", "김\n  치"), "김 치");
  assert.equal(createMatcher("  "), null);
});

test("a consonant alone is vague", () => {
  assert.equal(isVague("ㅎ"), true);
  assert.equal(isVague("ㅎㄱ"), false);
  assert.equal(isVague("하"), false);
});

test("what stands around a match is cut between characters", () => {
  const found = createMatcher("한글")(`${"👨‍👩‍👧‍👦".repeat(40)} 한글 ${"가나다".repeat(100)}`);
  assert.match(found.before, /^…(👨‍👩‍👧‍👦)+ $/u);
  assert.ok(numGraphemes(found.after) <= 60 && found.after.endsWith("…"));
});

test("text is cut between characters as people see them", () => {
  assert.equal(truncate("가나다", 3), "가나다");
  assert.equal(truncate("가나다라", 3), "가나…");
  assert.equal(truncate("👨‍👩‍👧‍👦👍🏽🇰🇷e\u0301", 4), "👨‍👩‍👧‍👦👍🏽🇰🇷e\u0301");
  assert.equal(truncate("👨‍👩‍👧‍👦👍🏽🇰🇷가", 3), "👨‍👩‍👧‍👦👍🏽…");
  assert.equal(truncate("한글".normalize("NFD"), 1), "…");
  assert.equal(truncateStart("가나다라", 3), "…다라");
  assert.equal(numGraphemes("👨‍👩‍👧‍👦한글".normalize("NFD")), 3);
});

test("conversations are grouped by the reader's days, pinned ones first", () => {
  const now = new Date(2026, 10, 22, 0, 30);
  const at = (id, ...date) => ({ id, isPinned: id === "pinned", updatedAt: new Date(...date).getTime() });
  const summaries = [
    at("older", 2026, 10, 14, 23, 59),
    at("pinned", 2025, 0, 1),
    at("week", 2026, 10, 15, 0, 0),
    at("today", 2026, 10, 22, 0, 1),
    at("newer", 2026, 10, 22, 0, 20),
    at("yesterday", 2026, 10, 21, 0, 0),
  ];
  assert.deepEqual(
    groupByDay(summaries, now).map((group) => [group.name, group.summaries.map((summary) => summary.id)]),
    [["pinned", ["pinned"]], ["today", ["newer", "today"]], ["yesterday", ["yesterday"]], ["week", ["week"]], ["older", ["older"]]],
  );
  assert.deepEqual(groupByDay([], now), []);
});
