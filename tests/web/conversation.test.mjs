// Conversations as trees.
import assert from "node:assert/strict";
import { test } from "node:test";

import {
  append,
  childrenByParent,
  createConversation,
  edit,
  newId,
  path,
  requestMessages,
  selectBranch,
  siblings,
  titleFrom,
  updateMessage,
  withShorterMemory,
} from "../../clients/web/conversation.js";

const contents = (messages) => messages.map((message) => message.content);

/** Questions and answers by turns. */
function talk(...texts) {
  let conversation = createConversation();
  const ids = [];
  for (const [index, content] of texts.entries()) {
    const added = append(conversation, { role: index % 2 ? "assistant" : "user", content });
    conversation = added.conversation;
    ids.push(added.message.id);
  }
  return { conversation, ids };
}

test("ids differ and need no secure context", () => {
  const ids = new Set(Array.from({ length: 1000 }, newId));
  assert.equal(ids.size, 1000);
});

test("messages follow the leaf", () => {
  const { conversation } = talk("안녕", "반가워요", "뭐 해?");
  assert.deepEqual(contents(path(conversation)), ["안녕", "반가워요", "뭐 해?"]);
  assert.deepEqual(path(createConversation()), []);
});

test("an edited question is a branch beside the old one, which stays", () => {
  const { conversation, ids } = talk("안녕", "반가워요", "뭐 해?", "답해요");
  const edited = edit(conversation, ids[2], "뭐 먹어?");
  assert.deepEqual(contents(path(edited.conversation)), ["안녕", "반가워요", "뭐 먹어?"]);
  assert.deepEqual(contents(siblings(edited.conversation, ids[2])), ["뭐 해?", "뭐 먹어?"]);
  const back = selectBranch(edited.conversation, ids[2]);
  assert.deepEqual(contents(path(back)), ["안녕", "반가워요", "뭐 해?", "답해요"]);
  assert.deepEqual(contents(path(conversation)), ["안녕", "반가워요", "뭐 해?", "답해요"]);
});

test("the first question has alternatives, too", () => {
  const { conversation, ids } = talk("처음");
  const edited = edit(conversation, ids[0], "다시");
  assert.deepEqual(contents(childrenByParent(edited.conversation).get(null)), ["처음", "다시"]);
  assert.deepEqual(contents(path(edited.conversation)), ["다시"]);
});

test("a patch removes what it calls undefined", () => {
  const { conversation, ids } = talk("안녕", "반");
  const failed = updateMessage(conversation, ids[1], { finishReason: "error", error: { code: null, status: 500, message: "" } });
  const cleared = updateMessage(failed, ids[1], { finishReason: undefined, error: undefined });
  assert.deepEqual(cleared, conversation);
});

test("a request has the system prompt, and no answer that has no words yet", () => {
  const { conversation, ids } = talk("안녕", "");
  const asked = { ...conversation, system: " 짧게 답해. " };
  assert.deepEqual(requestMessages(asked, ids[1]), [
    { role: "system", content: "짧게 답해." },
    { role: "user", content: "안녕" },
  ]);
});

test("thoughts are told to the model only of the answer that it goes on with", () => {
  const { conversation, ids } = talk("1+1?", "<think>쉽다</think>\n\n2", "2+2?", "<think>더하");
  assert.deepEqual(contents(requestMessages(conversation, ids[3])), ["1+1?", "2", "2+2?", "<think>더하"]);
});

test("the older half is left out from a question on, until one question is left", () => {
  const { conversation, ids } = talk("하나".repeat(9), "답".repeat(20), "둘".repeat(9), "답".repeat(20), "셋", "");
  const shorter = withShorterMemory(conversation);
  assert.equal(shorter.firstReadId, ids[2]);
  assert.deepEqual(contents(requestMessages(shorter, ids[5])).length, 3);
  const shortest = withShorterMemory(shorter);
  assert.equal(shortest.firstReadId, ids[4]);
  assert.equal(withShorterMemory(shortest), null);
});

test("titles are the first line's words, and end between characters", () => {
  assert.equal(titleFrom("\n\n  ## 안녕   하세요\n둘째 줄"), "안녕 하세요");
  assert.equal(titleFrom(""), "");
  const families = "👩‍👩‍👧‍👦".repeat(50);
  const title = titleFrom(families);
  assert.ok(title.endsWith("👩‍👩‍👧‍👦…"), title);
});
