// What is kept of conversations, in memory; tests/e2e/web/test_store.py asks the same of a real database.
import assert from "node:assert/strict";
import { test } from "node:test";

import { append, createConversation, edit, newId, updateMessage } from "../../clients/web/conversation.js";
import { openStore } from "../../clients/web/store/store.js";

const open = () => openStore({ factory: null, newId });

function talk(...contents) {
  let conversation = createConversation({ title: contents[0] });
  contents.forEach((content, index) => {
    conversation = append(conversation, { role: index % 2 ? "assistant" : "user", content, createdAt: index }).conversation;
  });
  return conversation;
}

test("without a database conversations are kept while the page is open", async () => {
  const store = await open();
  assert.equal(store.isPersistent, false);
  const conversation = { ...talk("안녕", "반가워요"), draft: "쓰다 만" };
  await store.save(conversation);
  assert.deepEqual(await store.load(conversation.id), conversation);
  assert.equal(await store.load("none"), null);
});

test("a browser that refuses its database is no error", async () => {
  const factory = {
    open() {
      throw new DOMException("denied", "SecurityError");
    },
  };
  assert.equal((await openStore({ factory, newId })).isPersistent, false);
});

test("what changed since is kept as well, and what was taken away is gone", async () => {
  const store = await open();
  let conversation = talk("하나", "둘");
  await store.save(conversation);
  conversation = edit(conversation, conversation.leafId, "셋").conversation;
  conversation = updateMessage(conversation, conversation.leafId, { finishReason: "stop" });
  await store.save(conversation);
  assert.deepEqual(await store.load(conversation.id), conversation);
  const [first] = Object.values(conversation.messages);
  const shorter = { ...conversation, messages: { [first.id]: first }, leafId: first.id };
  await store.save(shorter);
  assert.deepEqual(await store.load(conversation.id), shorter);
});

test("a conversation that was removed can be saved whole again", async () => {
  const store = await open();
  const conversation = talk("하나", "둘");
  await store.save(conversation);
  await store.remove(conversation.id);
  assert.deepEqual(await store.list(), []);
  await store.save(conversation);
  assert.deepEqual(await store.load(conversation.id), conversation);
});

test("saves that are not waited for are carried out in order", async () => {
  const store = await open();
  const conversation = talk("하나");
  for (const draft of ["ㄱ", "가", "각"]) void store.save({ ...conversation, draft });
  assert.equal((await store.load(conversation.id)).draft, "각");
});

test("the list has heads without messages, the newest first", async () => {
  const store = await open();
  await store.save({ ...talk("옛날", "답"), updatedAt: 1 });
  await store.save({ ...talk("지금"), updatedAt: 2 });
  const list = await store.list();
  assert.deepEqual(list.map(({ title, numMessages }) => [title, numMessages]), [["지금", 1], ["옛날", 2]]);
  assert.equal("messages" in list[0], false);
});

test("titles and messages are searched, the newest conversation first", async () => {
  const store = await open();
  await store.save({ ...talk("김치 담그기", "배추를 절여요."), updatedAt: 1 });
  await store.save({ ...talk("여행", "부산에서 김치찌개를"), updatedAt: 2 });
  const hits = await store.search("ㄱㅊ");
  assert.deepEqual(hits.map(({ title, message }) => [title?.match, message?.match]), [[undefined, "김치"], ["김치", undefined]]);
  assert.deepEqual((await store.search("배추")).map((hit) => hit.message.after), ["를 절여요."]);
  assert.deepEqual(await store.search(" "), []);
  assert.deepEqual(await store.search("ㄱㅊ", AbortSignal.abort()), []);
});

test("a consonant alone is looked for in titles only", async () => {
  const store = await open();
  await store.save(talk("여행", "호텔"));
  assert.deepEqual(await store.search("ㅎ").then((hits) => hits.map((hit) => hit.title.match)), ["행"]);
  assert.deepEqual(await store.search("ㅌ"), []);
});

test("choices are kept", async () => {
  const store = await open();
  assert.equal(await store.getSetting("theme"), undefined);
  await store.setSetting("theme", "dark");
  await store.removeAll();
  assert.equal(await store.getSetting("theme"), "dark");
  await store.setSetting("theme", null);
  assert.equal(await store.getSetting("theme"), undefined);
});
