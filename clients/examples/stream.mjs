// Streams one chat answer with the openai package: npm install openai; node stream.mjs [MESSAGE]
// openai 패키지로 답변을 흘려 받습니다: node stream.mjs "한국의 온돌을 한 문장으로 설명해 줘."
// ONDOL_URL, ONDOL_MODEL and ONDOL_API_KEY choose server, model and key.
import OpenAI from "openai";

const message = process.argv[2] ?? "Give me a short introduction to large language models.";
const client = new OpenAI({
  baseURL: `${process.env.ONDOL_URL ?? "http://127.0.0.1:8000"}/v1`,
  apiKey: process.env.ONDOL_API_KEY ?? "any",
});
const stream = await client.chat.completions.create({
  model: process.env.ONDOL_MODEL ?? "starter",
  stream: true,
  messages: [{ role: "user", content: message }],
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
process.stdout.write("\n");
