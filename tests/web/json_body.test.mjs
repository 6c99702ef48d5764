/** Bodies written in slices say what JSON.stringify says, however long they are. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { jsonBody } from "../../clients/web/json_body.js";

const question = (length) => ({ role: "user", content: "온돌\n\"방\"".repeat(length) });

test("a short body is text", async () => {
  const value = { model: "starter", messages: [question(1)], stop: [], temperature: 0, stream: true, seed: undefined };
  assert.equal(await jsonBody(value), JSON.stringify(value));
});

test("an empty object is a body, too", async () => {
  assert.equal(await jsonBody({}), "{}");
});

test("a long body is a Blob of the same bytes", async () => {
  const value = { messages: Array.from({ length: 400 }, () => question(200)), stream_options: { include_usage: true } };
  const body = await jsonBody(value);
  assert.ok(body instanceof Blob);
  assert.equal(await body.text(), JSON.stringify(value));
});

test("between the slices of a long body others have their turn", async () => {
  let numTurns = 0;
  const turns = setInterval(() => (numTurns += 1));
  await jsonBody({ messages: Array.from({ length: 4000 }, () => question(200)) });
  clearInterval(turns);
  assert.ok(numTurns > 0);
});
