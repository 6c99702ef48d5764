// Answers: what streams add up to, why they end, and what is asked of the daemon for them.
import assert from "node:assert/strict";
import { test } from "node:test";

import { answerRequest, readAnswer, waitAfter } from "../../clients/web/answer.js";
import { append, createConversation, updateMessage } from "../../clients/web/conversation.js";
import { endingOf } from "../../clients/web/endings.js";
import { isForInputMethod, isSendKey } from "../../clients/web/ime.js";
import { Run } from "../../clients/web/run.js";
import ko from "../../clients/web/strings/ko.js";
import { splitThought } from "../../clients/web/thoughts.js";

const delta = (words, finish_reason = null) => ({ chunk: { choices: [{ index: 0, delta: words, finish_reason }] } });

async function* streamed(...events) {
  yield* events;
}

test("a stream's pieces are told in order and its end has counts and timings", async () => {
  const told = [];
  const usage = { prompt_tokens: 3, completion_tokens: 2 };
  const end = await readAnswer(
    streamed(
      { comment: "ping - 2026" },
      { comment: "queued 2" },
      delta({ role: "assistant", content: "" }),
      delta({ reasoning_content: "음" }),
      delta({ content: "네" }),
      delta({}, "length"),
      { chunk: { choices: [], usage, timings: { tokens_per_second: 20 } } },
    ),
    (progress) => told.push(progress),
  );
  assert.deepEqual(told, [{ queuePosition: 2 }, { text: "", reasoning: "음" }, { text: "네", reasoning: "" }]);
  assert.deepEqual(end, { finishReason: "length", usage, timings: { tokens_per_second: 20 } });
});

test("an answer at the end of the messages is continued", () => {
  const question = { role: "user", content: "?" };
  const asked = answerRequest({ modelId: "m", messages: [question], parameters: { temperature: 0 } });
  assert.equal(asked.temperature, 0);
  assert.equal("continue_final_message" in asked, false);
  const continued = answerRequest({ modelId: "m", messages: [question, { role: "assistant", content: "음" }], parameters: {} });
  assert.deepEqual([continued.continue_final_message, continued.add_generation_prompt], [true, false]);
});

test("what passes by itself is waited for, the rest is not", () => {
  const wait = (code, status = 503, retryAfterS = null) => waitAfter({ code, status, retryAfterS });
  for (const code of ["unreachable", "connection_lost", "shutting_down"]) assert.equal(wait(code, 0).for, "daemon");
  assert.deepEqual(wait("model_loading", 503, 3), { for: "loading", delayS: 3 });
  assert.deepEqual(wait("no_room_yet"), { for: "room", delayS: 5 });
  assert.equal(wait("queue_full", 429).for, "turn");
  assert.equal(wait(null, 502).for, "daemon");
  for (const code of ["invalid_api_key", "rate_limit_exceeded", "context_length_exceeded", "engine_failed", null]) {
    assert.equal(wait(code, 400), null, code);
  }
});

test("thoughts end where the model says so, whoever opened them", () => {
  assert.deepEqual(splitThought("<think>\n음\n</think>\n\n답"), { thought: "음", answer: "답", isThinking: false });
  assert.deepEqual(splitThought("음\n</think>\n답"), { thought: "음", answer: "답", isThinking: false });
  assert.deepEqual(splitThought("<think>\n음"), { thought: "음", answer: "", isThinking: true });
  assert.deepEqual(splitThought("a < b, <think>"), { thought: "", answer: "a < b, <think>", isThinking: false });
});

function talk(fields, parameters = {}) {
  let conversation = createConversation({ parameters });
  ({ conversation } = append(conversation, { role: "user", content: "첫 물음" }));
  ({ conversation } = append(conversation, { role: "assistant", content: "첫 답" }));
  ({ conversation } = append(conversation, { role: "user", content: "물음" }));
  const { conversation: asked, message } = append(conversation, { role: "assistant", modelId: "m" });
  const whole = updateMessage(asked, message.id, fields);
  return endingOf(whole.messages[message.id], whole);
}

test("every ending has words, and one that left the answer unfinished a way on", () => {
  const error = (code) => ({ finishReason: "error", error: { code, status: 400, message: "이유" } });
  const codes = ["invalid_api_key", "context_length_exceeded", "model_not_found", "engine_failed", "toString", null];
  const endings = [
    ...["stop", "edited", "tool_calls", "content_filter", "stopped", "lost", "left", "length", undefined, "new_one"].map(
      (finishReason) => talk({ finishReason, content: "반" }),
    ),
    ...codes.map((code) => talk({ ...error(code), content: "" })),
  ];
  for (const ending of endings) {
    assert.ok(ko[ending.key], ending.key);
    assert.equal(ending.kind === "whole", ending.remedies.length === 0, ending.key);
    for (const remedy of ending.remedies) assert.ok(ko[`remedy.${remedy}`], remedy);
  }
});

test("where no word has come there is nothing to continue, and where some have nothing to begin anew", () => {
  assert.deepEqual(talk({ finishReason: "stopped", content: "" }).remedies, ["retry"]);
  assert.deepEqual(talk({ finishReason: "stopped", content: "반" }).remedies, ["continue"]);
});

test("a length that was reached is the reader's limit, a deadline, or the context", () => {
  const stats = { numTokens: 16 };
  assert.equal(talk({ finishReason: "length", stats }, { max_tokens: 16 }).key, "end.maxTokens");
  assert.equal(talk({ finishReason: "length", stats }, { deadline_s: 4 }).key, "end.deadline");
  assert.deepEqual(talk({ finishReason: "length", stats }, { max_tokens: 99 }).remedies, ["forget", "newChat"]);
});

test("a run counts tokens from the first one on, and adds what it continues", async () => {
  let nowMs = 1000;
  const kept = [];
  const message = { id: "a", content: "앞", stats: { numTokens: 5, ttftS: 0.2 } };
  const run = new Run({
    conversationId: "c",
    message,
    onChange: () => undefined,
    keep: async (...words) => void kept.push(words),
    clockMs: () => nowMs,
  });
  nowMs += 500;
  for (const text of ["뒤", "에", "요"]) {
    run.add({ text });
    nowMs += 100;
  }
  const { text, numTokens, ttftS, tokensPerS } = run.status;
  assert.deepEqual([text, numTokens, ttftS, tokensPerS], ["앞뒤에요", 3, 0.5, 10]);
  const outcome = run.outcome({ finishReason: "stopped" });
  assert.deepEqual(outcome.content, "앞뒤에요");
  assert.deepEqual([outcome.stats.numTokens, outcome.stats.ttftS, outcome.stats.tokensPerS], [8, 0.2, 10]);
  assert.deepEqual(kept, [], "a run that ended keeps nothing any more");
});

test("words that came at once have no speed", () => {
  let nowMs = 0;
  const message = { id: "a", content: "" };
  const run = new Run({ conversationId: "c", message, onChange: () => undefined, keep: async () => undefined, clockMs: () => nowMs });
  run.add({ text: "뒤" });
  nowMs += 1;
  run.add({ text: "에" });
  assert.equal(run.outcome({ finishReason: "stopped" }).stats.tokensPerS, undefined);
});

test("a run that waits goes on in time, when it is told, or when it is given up", async () => {
  const begin = () => new Run({ conversationId: "c", message: { id: "a", content: "" }, onChange: () => undefined, keep: async () => undefined });
  await begin().pause({ for: "turn", delayS: 0 }, null);
  let numEnded = 0;
  await begin().pause({ for: "daemon", delayS: 0 }, (onReady) => {
    setImmediate(onReady);
    return () => (numEnded += 1);
  });
  assert.equal(numEnded, 1);
  const givenUp = begin();
  setImmediate(() => givenUp.abort());
  await givenUp.pause({ for: "turn", delayS: 3600 }, null);
  assert.equal(givenUp.signal.aborted, true);
});

test("keys of the input method are not ours", () => {
  assert.equal(isForInputMethod({ isComposing: true, keyCode: 13 }), true);
  assert.equal(isForInputMethod({ isComposing: false, keyCode: 229 }), true);
  assert.equal(isForInputMethod({ isComposing: false, keyCode: 13 }), false);
});

test("Enter sends or makes a line, as chosen and as one types", () => {
  const key = (fields) => ({ key: "Enter", shiftKey: false, altKey: false, ctrlKey: false, metaKey: false, ...fields });
  const desktop = { sendKey: "enter", isCoarse: false };
  assert.equal(isSendKey(key({}), desktop), true);
  assert.equal(isSendKey(key({ shiftKey: true }), desktop), false);
  assert.equal(isSendKey(key({ key: "a" }), desktop), false);
  assert.equal(isSendKey(key({}), { sendKey: "enter", isCoarse: true }), false);
  assert.equal(isSendKey(key({}), { sendKey: "mod-enter", isCoarse: false }), false);
  for (const modifier of ["ctrlKey", "metaKey"]) assert.equal(isSendKey(key({ [modifier]: true }), { sendKey: "mod-enter", isCoarse: true }), true);
});
