// The daemon's API over real HTTP.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { createApi } from "../../clients/web/api.js";

const EVENT_STREAM = { "content-type": "text/event-stream" };
const chunk = (content) => `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`;

let server;
let baseUrl;
/** What the next request meets. @type {(request: any, response: any, body: string) => void} */
let answer;

before(async () => {
  server = createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += part;
    answer(request, response, body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  baseUrl = `http://127.0.0.1:${server.address().port}/under/`;
});

after(() => {
  server.closeAllConnections();
  server.close();
});

function refuse(status, error, headers = {}) {
  answer = (_, response) => {
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify({ error }));
  };
}

async function all(events) {
  const told = [];
  for await (const event of events) told.push(event);
  return told;
}

const refusal = (promise) => promise.then(() => assert.fail("was not refused"), (error) => error);

test("requests go beside the page, with the key and a JSON body", async () => {
  let seen;
  answer = (request, response, body) => {
    seen = { url: request.url, key: request.headers.authorization, type: request.headers["content-type"], body };
    response.end('{"count": 2}');
  };
  const api = createApi({ baseUrl });
  api.setKey("sk-ondol");
  assert.deepEqual(await api.tokenize("한글", "starter"), { count: 2 });
  assert.deepEqual(seen, {
    url: "/under/tokenize",
    key: "Bearer sk-ondol",
    type: "application/json",
    body: '{"prompt":"한글","model":"starter"}',
  });
});

test("a refusal tells its status, code, field and when to come back", async () => {
  refuse(503, { message: "Retry.", type: "server_error", param: "model", code: "no_room_yet" }, { "retry-after": "7" });
  const error = await refusal(createApi({ baseUrl }).models());
  assert.deepEqual({ ...error, message: error.message }, {
    name: "ApiError",
    message: "Retry.",
    status: 503,
    code: "no_room_yet",
    param: "model",
    retryAfterS: 7,
    phase: null,
  });
});

test("only the daemon's own wish for a key asks for one", async () => {
  let numAsked = 0;
  const api = createApi({ baseUrl, onUnauthorized: () => (numAsked += 1) });
  refuse(401, { message: "", code: "hub_token_missing" });
  await refusal(api.load("gated"));
  assert.equal(numAsked, 0);
  refuse(401, { message: "", code: "invalid_api_key" });
  await refusal(api.models());
  assert.equal(numAsked, 1);
});

test("a page of a proxy instead of an error is told by its status", async () => {
  answer = (_, response) => response.writeHead(502).end("<h1>Bad Gateway</h1>");
  const error = await refusal(createApi({ baseUrl }).models());
  assert.deepEqual([error.status, error.code, error.message], [502, null, "502 Bad Gateway"]);
});

test("nobody there is unreachable", async () => {
  const error = await refusal(createApi({ baseUrl: "http://127.0.0.1:9/" }).models());
  assert.deepEqual([error.status, error.code], [0, "unreachable"]);
});

test("a machine that says nothing is unreachable, too", async () => {
  answer = () => undefined;
  const error = await refusal(createApi({ baseUrl, readyTimeoutMs: 20 }).ready());
  assert.deepEqual([error.name, error.code], ["ApiError", "unreachable"]);
});

test("readiness is told by its phase, also where it is no success", async () => {
  answer = (_, response) => response.writeHead(503).end('{"status":"loading"}');
  assert.equal(await createApi({ baseUrl }).ready(), "loading");
});

test("an answer's chunks and comments come in order, up to the daemon's own end", async () => {
  answer = (_, response) => response.writeHead(200, EVENT_STREAM).end(`: queued 2\n\n${chunk("가")}${chunk("나")}data: [DONE]\n\n`);
  const told = await all(createApi({ baseUrl }).chat({}));
  assert.deepEqual(told.map((event) => event.comment ?? event.chunk.choices[0].delta.content), ["queued 2", "가", "나"]);
});

test("a stream that ends before it was all is a lost connection, after what has come", async () => {
  for (const end of [(response) => response.end(), (response) => response.destroy()]) {
    answer = (_, response) => {
      response.writeHead(200, EVENT_STREAM);
      response.write(chunk("가"), () => setImmediate(() => end(response)));
    };
    const told = [];
    const error = await refusal((async () => {
      for await (const event of createApi({ baseUrl }).chat({})) told.push(event);
    })());
    assert.equal(error.code, "connection_lost");
    assert.equal(told.length, 1);
  }
});

test("an error in the middle of a stream is the daemon's", async () => {
  const failed = { error: { message: "The engine failed.", code: "engine_failed" } };
  answer = (_, response) => response.writeHead(200, EVENT_STREAM).end(`${chunk("가")}data: ${JSON.stringify(failed)}\n\n`);
  const error = await refusal(all(createApi({ baseUrl }).chat({})));
  assert.deepEqual([error.code, error.message], ["engine_failed", "The engine failed."]);
});

test("a silence longer than keep-alives allow is a lost connection", async () => {
  answer = (_, response) => response.writeHead(200, EVENT_STREAM).write(chunk("가"));
  const error = await refusal(all(createApi({ baseUrl, idleTimeoutMs: 30 }).chat({})));
  assert.equal(error.code, "connection_lost");
});

test("the caller's own abort stays one, and closes the connection", async () => {
  const closed = new Promise((resolve) => {
    answer = (request, response) => {
      response.on("close", resolve);
      response.writeHead(200, EVENT_STREAM).write(chunk("가"));
    };
  });
  const abortion = new AbortController();
  const error = await refusal((async () => {
    for await (const _ of createApi({ baseUrl }).chat({}, { signal: abortion.signal })) abortion.abort();
  })());
  assert.equal(error.name, "AbortError");
  await closed;
});

test("events of models are objects; the last one says why there are no more", async () => {
  const events = [{ model: "a", event: "model_status", data: { status: "loaded" } }, { model: "b", event: "model_remove" }];
  const ending = { error: { message: "The server is shutting down.", code: "shutting_down" } };
  const lines = [...events, ending].map((event) => `data: ${JSON.stringify(event)}\n\n`);
  answer = (_, response) => response.writeHead(200, EVENT_STREAM).end(`: ping\n\n${lines.join("")}`);
  const told = [];
  const error = await refusal(createApi({ baseUrl }).modelEvents((event) => told.push(event)));
  assert.deepEqual(told, events);
  assert.equal(error.code, "shutting_down");
});
