// Conversations as files: what comes back, and what is refused.
import assert from "node:assert/strict";
import { test } from "node:test";

import { append, createConversation, edit, newId, path } from "../../clients/web/conversation.js";
import { createTranslate } from "../../clients/web/i18n.js";
import { fileName, toMarkdown } from "../../clients/web/store/markdown_export.js";
import { openStore } from "../../clients/web/store/store.js";
import { InvalidExport, readExport, writeExport } from "../../clients/web/store/transfer.js";

const open = () => openStore({ factory: null, newId });
const overTheWire = (value) => JSON.parse(JSON.stringify(value));

function talk() {
  let conversation = createConversation({ title: "제목", system: "짧게", parameters: { temperature: 0, stop: ["끝"] } });
  conversation = append(conversation, { role: "user", content: "질문" }).conversation;
  conversation = append(conversation, { role: "assistant", content: "답", modelId: "m", finishReason: "stop", stats: { ttftS: 0.5 } }).conversation;
  return edit(conversation, conversation.leafId, "고친 답").conversation;
}

function refusal(json) {
  try {
    readExport(json, newId);
  } catch (error) {
    assert.ok(error instanceof InvalidExport, String(error));
    return `${error.reason} ${error.place}`.trim();
  }
  return null;
}

test("an export that is imported elsewhere is the same conversation", async () => {
  const [here, there] = [await open(), await open()];
  const conversation = talk();
  await here.save(conversation);
  const counts = await there.importAll(overTheWire(await here.exportAll()));
  assert.deepEqual(counts, { numAdded: 1, numSkipped: 0, numCopied: 0 });
  assert.deepEqual(await there.load(conversation.id), conversation);
});

test("importing twice adds nothing, and other words are added beside", async () => {
  const store = await open();
  const conversation = talk();
  await store.save(conversation);
  const exported = overTheWire(await store.exportAll([conversation.id]));
  assert.deepEqual(await store.importAll(exported), { numAdded: 0, numSkipped: 1, numCopied: 0 });
  exported.conversations[0].messages[conversation.leafId].content = "다른 답";
  assert.deepEqual(await store.importAll(exported), { numAdded: 0, numSkipped: 0, numCopied: 1 });
  assert.deepEqual(await store.load(conversation.id), conversation);
  assert.equal((await store.list()).length, 2);
});

test("files of other forms, newer ones and broken ones are refused with the place", () => {
  const file = (change) => {
    const value = overTheWire(writeExport([talk()], new Date()));
    change(value.conversations[0], Object.values(value.conversations[0].messages), value);
    return refusal(value);
  };
  assert.equal(refusal({}), "unknownFormat");
  assert.equal(refusal([]), "unknownFormat");
  assert.equal(refusal("text"), "unknownFormat");
  assert.equal(file((_, __, value) => (value.version = 2)), "newerVersion");
  assert.equal(file((_, __, value) => (value.conversations[0] = null)), "broken conversations[0]");
  assert.match(file((_, messages) => (messages[0].role = "system")), /^broken conversations\[0\]\.messages\.\w+$/);
  assert.match(file((_, messages) => (messages[1].content = 7)), /^broken/);
  assert.match(file((_, messages) => (messages[1].parentId = "gone")), /parentId$/);
  assert.match(file((_, messages) => (messages[0].parentId = messages[1].id)), /parentId$/);
  assert.equal(file(() => undefined), null);
});

test("names that objects answer to are no ids", () => {
  const json = '{"format":"ondol.conversations","version":1,"conversations":[{"messages":{"__proto__":{"parentId":null,"role":"user","content":"x"}}}]}';
  assert.match(refusal(JSON.parse(json)), /^broken/);
});

test("what a file says beyond the form is left out", () => {
  const value = overTheWire(writeExport([talk()], new Date()));
  Object.assign(value.conversations[0], { onload: "x", leafId: "gone", parameters: { top_p: 0.5, model: "x", stop: [1] } });
  const [conversation] = readExport(value, newId);
  assert.equal("onload" in conversation, false);
  assert.deepEqual(conversation.parameters, { top_p: 0.5 });
  assert.equal(path(conversation).at(-1).content, "고친 답");
});

test("chats of Open WebUI keep their branches", () => {
  const message = (id, parentId, role, content) => ({ id, parentId, childrenIds: [], role, content, timestamp: 1700000000, model: role === "assistant" ? "qwen" : undefined });
  const history = {
    currentId: "a2",
    messages: { q: message("q", null, "user", "질문"), a1: message("a1", "q", "assistant", "답 하나"), a2: message("a2", "q", "assistant", [{ type: "text", text: "답 둘" }]) },
  };
  const chat = { title: "안", models: ["qwen"], params: { system: "짧게", repeat_penalty: 1.1, num_ctx: 4096 }, history };
  const [conversation] = readExport([{ id: "c-1", title: "제목", chat, created_at: 1700000000, updated_at: 1700000001, pinned: true }], newId);
  assert.deepEqual(path(conversation).map(({ content }) => content), ["질문", "답 둘"]);
  assert.equal(Object.keys(conversation.messages).length, 3);
  assert.deepEqual(conversation.parameters, { repetition_penalty: 1.1 });
  assert.deepEqual(
    [conversation.title, conversation.system, conversation.isPinned, conversation.modelId, conversation.updatedAt],
    ["제목", "짧게", true, "qwen", 1700000001000],
  );
});

test("a conversation can be read as Markdown", async () => {
  const text = toMarkdown(talk(), { t: await createTranslate("ko"), locale: "ko" });
  assert.match(text, /^# 제목\n\n_\d{4}년/);
  assert.ok(text.endsWith("> 짧게\n\n## 나\n\n질문\n\n## m\n\n고친 답\n"), text);
});

test("file names are taken by every system", () => {
  assert.equal(fileName('a/b:c"<>|?*\\..', "md"), "a b c.md");
  assert.equal(fileName(" \n", "json"), "ondol.json");
  assert.equal(fileName("한글".normalize("NFD"), "md"), "한글.md");
});
