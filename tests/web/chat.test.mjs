// What a reader does, as the state, the store and the daemon see it.
import assert from "node:assert/strict";
import { test } from "node:test";

import { createChat } from "../../clients/web/chat.js";
import { newId, path } from "../../clients/web/conversation.js";
import { createConversations } from "../../clients/web/conversations.js";
import { ApiError } from "../../clients/web/http.js";
import { createState } from "../../clients/web/state.js";
import { openStore } from "../../clients/web/store/store.js";

const chunk = (content, finish_reason = null) => ({ chunk: { choices: [{ index: 0, delta: { content }, finish_reason }] } });

/** A page without a browser; `answers` are what the daemon says, one generator for each request. */
async function begin(answers, initial = {}) {
  const bodies = [];
  const store = await openStore({ factory: null, newId });
  const state = createState({
    models: [{ id: "m", in_cache: true, status: { value: "loaded" } }],
    modelId: "m",
    conversation: null,
    summaries: [],
    streaming: null,
    editing: null,
    needsKey: false,
    connection: "ready",
    ...initial,
  });
  const api = {
    chat(body, { signal }) {
      bodies.push(body);
      return answers[bodies.length - 1](signal);
    },
  };
  const conversations = createConversations({ state, store, onFull: () => assert.fail("the disk is full") });
  const chat = { ...conversations, ...createChat({ state, api, conversations, connection: { check: () => undefined } }) };
  chat.create();
  return { bodies, chat, state, store };
}

async function until(condition) {
  const deadlineMs = Date.now() + 5000;
  while (!condition()) {
    assert.ok(Date.now() < deadlineMs, `still not: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const said = (conversation) => path(conversation).map(({ content, finishReason }) => [content, finishReason]);
const ended = ({ state }) => until(() => state.get().streaming === null && state.get().conversation.messages[state.get().conversation.leafId]?.finishReason);

async function* whole(...texts) {
  for (const text of texts) yield chunk(text);
  yield chunk("", "stop");
}

/** Says one word, then nothing until the reader gives up. */
async function* endless(signal) {
  signal.throwIfAborted();
  yield chunk("반");
  await new Promise((_, reject) => signal.addEventListener("abort", () => reject(new DOMException("", "AbortError"))));
}

test("a question and its answer are stored, with a title and the model", async () => {
  const page = await begin([() => whole("반가", "워요")]);
  assert.equal(page.chat.send("  안녕\n둘째 줄"), true);
  await ended(page);
  await page.chat.refresh();
  const [summary] = page.state.get().summaries;
  assert.equal(summary.title, "안녕");
  const stored = await page.store.load(summary.id);
  assert.deepEqual(said(stored), [["  안녕\n둘째 줄", undefined], ["반가워요", "stop"]]);
  assert.equal(stored.messages[stored.leafId].modelId, "m");
});

test("nothing is sent twice, and nothing empty", async () => {
  const page = await begin([endless]);
  assert.equal(page.chat.send(" \n"), false);
  assert.equal(page.chat.send("하나"), true);
  assert.equal(page.chat.send("둘"), false);
  page.chat.stop();
  await ended(page);
  assert.equal(page.bodies.length, 1);
});

test("an answer that is stopped keeps its words and goes on inside of them", async () => {
  const page = await begin([endless, () => whole("가운", "데")]);
  page.chat.send("세어");
  await until(() => page.state.get().streaming?.text === "반");
  page.chat.stop();
  await ended(page);
  const { conversation } = page.state.get();
  assert.deepEqual(said(conversation).at(-1), ["반", "stopped"]);
  page.chat.continueAnswer(conversation.leafId);
  await until(() => page.bodies.length === 2);
  await ended(page);
  assert.deepEqual(said(page.state.get().conversation).at(-1), ["반가운데", "stop"]);
  assert.equal(page.bodies[1].continue_final_message, true);
});

test("a question before the models are known waits for them", async () => {
  const page = await begin([() => whole("네")], { models: [], modelId: null });
  page.chat.send("일찍");
  await until(() => page.state.get().streaming?.waitingFor === "loading");
  assert.deepEqual(page.bodies, []);
  page.state.set({ models: [{ id: "late", in_cache: true, status: { value: "loaded" } }], modelId: "late" });
  await ended(page);
  assert.equal(page.bodies[0].model, "late");
  const { messages, leafId } = page.state.get().conversation;
  assert.equal(messages[leafId].modelId, "late");
});

test("an answer goes on without its reader, and is there when they come back", async () => {
  let finish;
  const page = await begin([
    async function* () {
      yield chunk("처음");
      await new Promise((resolve) => (finish = resolve));
      yield* whole(" 끝");
    },
  ]);
  page.chat.send("오래");
  await until(() => page.state.get().streaming?.text === "처음");
  const { id } = page.state.get().conversation;
  page.chat.create();
  await until(() => page.state.get().streaming === null);
  finish();
  await page.chat.refresh();
  await until(() => page.state.get().summaries.length === 1);
  await page.chat.open(id);
  await ended(page);
  assert.deepEqual(said(page.state.get().conversation).at(-1), ["처음 끝", "stop"]);
});

test("a connection that breaks without a new word is not tried for ever", async () => {
  const broken = () =>
    (async function* () {
      throw new ApiError("broken", { code: "connection_lost" });
    })();
  const page = await begin(Array(9).fill(broken));
  page.chat.send("거기?");
  // The daemon is told to be there each time, and the stream breaks each time.
  page.state.subscribe(["connection"], ({ connection }) => connection === "gone" && page.state.set({ connection: "ready" }));
  await ended(page);
  assert.deepEqual(said(page.state.get().conversation).at(-1), ["", "lost"]);
  assert.equal(page.bodies.length, 5);
});

test("what a missing key refused is asked again with the key", async () => {
  const refuse = () =>
    (async function* () {
      throw new ApiError("key", { status: 401, code: "invalid_api_key" });
    })();
  const page = await begin([refuse, () => whole("열렸어요")], { needsKey: true });
  page.chat.send("열어 줘");
  await ended(page);
  assert.equal(said(page.state.get().conversation).at(-1)[1], "error");
  page.state.set({ needsKey: false });
  await until(() => page.bodies.length === 2);
  await ended(page);
  assert.deepEqual(said(page.state.get().conversation).at(-1), ["열렸어요", "stop"]);
});

test("a conversation that is removed ends its answer, and comes back whole", async () => {
  const page = await begin([endless]);
  page.chat.send("지울 말");
  await until(() => page.state.get().streaming?.text === "반");
  const { id } = page.state.get().conversation;
  const removed = await page.chat.remove(id);
  assert.notEqual(page.state.get().conversation.id, id);
  assert.deepEqual(page.state.get().summaries, []);
  await page.chat.restore(removed);
  await page.chat.open(id);
  assert.deepEqual(said(page.state.get().conversation), [["지울 말", undefined], ["반", "stopped"]]);
});

test("changes of a conversation that is left meanwhile are stored", async () => {
  const page = await begin([() => whole("네")]);
  page.chat.send("이름");
  await ended(page);
  const { id } = page.state.get().conversation;
  const renamed = page.chat.rename(id, " 새 이름 ");
  page.chat.create();
  await renamed;
  await page.chat.setPinned(id, true);
  const { title, isPinned } = await page.store.load(id);
  assert.deepEqual([title, isPinned], ["새 이름", true]);
});

test("removing all conversations leaves no words behind", async () => {
  const page = await begin([endless]);
  page.chat.send("남기지 마");
  await until(() => page.state.get().streaming?.text === "반");
  const { id } = page.state.get().conversation;
  await page.chat.keepOpenAnswer(id, { id: "m", content: "반" });
  await page.chat.removeAll();
  assert.deepEqual(page.state.get().summaries, []);
  assert.equal(await page.store.load(id), null);
  assert.equal(await page.store.getSetting(`openAnswer:${id}`), undefined);
});
