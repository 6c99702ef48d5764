// OpenAI's Node client against one daemon: `node chat.mjs SCENARIO BASE_URL MODEL`.
// Prints one JSON object a line; test_node_sdk.py says what they must be.

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const NUM_TOKENS_BEFORE_ABORT = 5;
const [scenario, baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
const messages = [{ role: "user", content: "Give me a short introduction to large language models." }];
const chat = { model, messages, temperature: 0, max_tokens: 12 };
const longChat = { ...chat, max_tokens: 900, ignore_eos: true };

const say = (event) => console.log(JSON.stringify(event));

const scenarios = {
  async stream() {
    const stream = await client.chat.completions.create({
      ...chat,
      stream: true,
      stream_options: { include_usage: true },
    });
    for await (const { choices, usage } of stream) {
      say({ delta: choices[0]?.delta, finish_reason: choices[0]?.finish_reason, usage });
    }
  },

  async whole() {
    const { choices, usage } = await client.chat.completions.create(chat);
    say({ content: choices[0].message.content, finish_reason: choices[0].finish_reason, usage });
  },

  async helper() {
    const runner = client.chat.completions.stream(chat);
    say({ content: await runner.finalContent() });
  },

  async parse() {
    const schema = z.object({ city: z.enum(["서울", "부산"]), isWarm: z.boolean() });
    const { choices } = await client.chat.completions.parse({
      ...chat,
      max_tokens: 100,
      logprobs: true,
      top_logprobs: 2,
      response_format: zodResponseFormat(schema, "weather"),
    });
    const { message, logprobs } = choices[0];
    say({ parsed: message.parsed, content: message.content, logprobs: logprobs.content });
  },

  async abort_stream() {
    const controller = new AbortController();
    const stream = await client.chat.completions.create(
      { ...longChat, stream: true },
      { signal: controller.signal },
    );
    let numTokens = 0;
    for await (const { choices } of stream) {
      numTokens += choices[0].delta.content ? 1 : 0;
      if (numTokens === NUM_TOKENS_BEFORE_ABORT) controller.abort();
    }
    // The client ends an aborted stream without an error.
    say({ is_aborted: controller.signal.aborted });
  },

  async abort_whole() {
    const controller = new AbortController();
    const answered = report(() => client.chat.completions.create(longChat, { signal: controller.signal }));
    await untilOneRuns();
    controller.abort();
    await answered;
  },

  async errors() {
    await report(() => client.chat.completions.create({ ...chat, model: "gpt-4" }));
    await report(() => client.chat.completions.create({ ...chat, messages: [], stream: true }));
    await report(() => client.completions.create({ model, prompt: "floor ".repeat(3000) }));
  },

  async models() {
    for await (const { id } of client.models.list()) say({ id });
  },
};

async function untilOneRuns() {
  for (;;) {
    const metrics = await (await fetch(new URL("/metrics", baseURL))).text();
    if (/^ondol_requests_running\{.*\} [1-9]/m.test(metrics)) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function report(ask) {
  try {
    say({ answer: await ask() });
  } catch (error) {
    const { status, code, param } = error;
    say({ error: error.constructor.name, status, code, param });
  }
}

await scenarios[scenario]();
