// Server-sent events out of bytes that are cut anywhere.
import assert from "node:assert/strict";
import { test } from "node:test";

import { createEventParser, serverSentEvents } from "../../clients/web/stream.js";

const STREAM = ': queued 2\n\ndata: {"글":"한글"}\r\n\r\ndata: 첫 줄\rdata: 둘째 줄\r\revent: x\nid: 1\ndata:붙은\n\ndata: 끝나지 않은';
const EVENTS = [{ comment: "queued 2" }, { data: '{"글":"한글"}' }, { data: "첫 줄\n둘째 줄" }, { data: "붙은" }];

function bodyOf(bytes, size) {
  return new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
      controller.close();
    },
  });
}

test("events do not depend on how their bytes were cut", async () => {
  const bytes = new TextEncoder().encode(STREAM);
  for (const size of [1, 2, 3, 5, 7, 1000]) {
    const events = [];
    for await (const event of serverSentEvents(bodyOf(bytes, size))) events.push(event);
    assert.deepEqual(events, EVENTS, `in pieces of ${size}`);
  }
});

test("a line break whose halves come apart is one", () => {
  const parser = createEventParser();
  assert.deepEqual(parser.push("data: a\r"), []);
  assert.deepEqual(parser.push("\n"), []);
  assert.deepEqual(parser.push("\r\n"), [{ data: "a" }]);
});

test("who stops listening closes the connection", async () => {
  let isClosed = false;
  const body = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode("data: a\n\n")),
    cancel: () => {
      isClosed = true;
    },
  });
  for await (const event of serverSentEvents(body)) {
    assert.deepEqual(event, { data: "a" });
    break;
  }
  assert.equal(isClosed, true);
});
