// Vercel's AI SDK against one daemon: `node ai_sdk.mjs SCENARIO BASE_URL MODEL`.
// Prints one JSON object a line; test_ai_sdk.py says what they must be.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, streamText } from "ai";
import { z } from "zod";

const [scenario, baseURL, model] = process.argv.slice(2);
const ondol = createOpenAICompatible({
  name: "ondol",
  baseURL,
  apiKey: "any",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const prompt = "Give me a short introduction to large language models.";
const chat = { model: ondol(model), prompt, temperature: 0, maxOutputTokens: 12, maxRetries: 0 };

const say = (event) => console.log(JSON.stringify(event));

const scenarios = {
  async whole() {
    const { text, finishReason, usage } = await generateText(chat);
    say({ text, finishReason, outputTokens: usage.outputTokens });
  },

  async stream() {
    const result = streamText(chat);
    let text = "";
    for await (const part of result.textStream) text += part;
    const { outputTokens } = await result.usage;
    say({ text, finishReason: await result.finishReason, outputTokens });
  },

  async object() {
    const schema = z.object({ city: z.enum(["서울", "부산"]), isWarm: z.boolean() });
    const { object } = await generateObject({ ...chat, schema, maxOutputTokens: 100 });
    say(object);
  },

  async error() {
    try {
      await generateText({ ...chat, model: ondol("gpt-4") });
    } catch (error) {
      say({ isCallError: APICallError.isInstance(error), status: error.statusCode, message: error.message });
    }
  },
};

await scenarios[scenario]();
