// What was typed and not sent.
import assert from "node:assert/strict";
import { test } from "node:test";

import { createDrafts } from "../../clients/web/drafts.js";

const refusing = () => {
  throw new DOMException("The operation is insecure.", "SecurityError");
};

test("drafts are told apart, and an empty one is none", () => {
  const drafts = createDrafts(refusing);
  drafts.set("a", "가");
  drafts.set("b", "나");
  drafts.set("b", "");
  assert.deepEqual([drafts.get("a"), drafts.get("b"), drafts.get("c")], ["가", "", ""]);
});

test("all drafts go at once, and nothing else does", () => {
  const items = new Map([["theme", "dark"]]);
  const storage = {
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => void items.set(key, value),
    removeItem: (key) => void items.delete(key),
    key: (index) => [...items.keys()][index],
    get length() {
      return items.size;
    },
  };
  const drafts = createDrafts(() => storage);
  for (const id of ["a", "b", "c"]) drafts.set(id, "글");
  drafts.removeAll();
  assert.deepEqual([...items.keys()], ["theme"]);
});

test("a draft beyond what the browser keeps raises nothing", () => {
  const full = { getItem: () => null, setItem: () => { throw new DOMException("", "QuotaExceededError"); } };
  createDrafts(() => full).set("a", "글");
});
