// Streams one chat answer with the openai package: npm install openai; node stream.mjs [MESSAGE]
import OpenAI from "openai";

const message = process.argv[2] ?? "Give me a short introduction to large language models.";
const client = new OpenAI({ baseURL: "http://127.0.0.1:8000/v1", apiKey: "any" });
const stream = await client.chat.completions.create({
  model: "starter",
  stream: true,
  messages: [{ role: "user", content: message }],
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
process.stdout.write("\n");
