// Makes every call of the clients for Node.js, and prints what each gave; see python_clients.py.
import { createOpenAI } from "@ai-sdk/openai";
import { embed, embedMany, generateText, streamText } from "ai";
import OpenAI from "openai";

const TEXT = "how do I reset my password?";
const TEXTS = ["hello", TEXT, "Straße und 你好"];
const QUESTION = "What is a proxy?";
const [EMBEDDER, CHAT] = ["text-embedding-3-small", "gpt-4o-mini"];
const MODERATOR = "omni-moderation-latest";
const baseURL = `${process.argv[2]}/v1`;

const openai = new OpenAI({ baseURL, apiKey: "x", maxRetries: 0 });
const vercel = createOpenAI({ baseURL, apiKey: "x" });
const messages = [{ role: "user", content: QUESTION }];

const calls = {
  "openai (Node)": {
    "client.embeddings.create": async () => {
      const answer = await openai.embeddings.create({ model: EMBEDDER, input: TEXTS });
      return answer.data.map((one) => one.embedding);
    },
    "chat.completions.create": async () => {
      const answer = await openai.chat.completions.create({ model: CHAT, messages });
      return answer.choices[0].message.content;
    },
    "chat.completions.create, streamed": async () => {
      const parts = await openai.chat.completions.create({ model: CHAT, messages, stream: true });
      let told = "";
      for await (const part of parts) told += part.choices[0]?.delta?.content ?? "";
      return told;
    },
    "responses.create": async () =>
      (await openai.responses.create({ model: CHAT, input: QUESTION })).output_text,
    "models.retrieve, of an upstream": async () => (await openai.models.retrieve(CHAT)).id,
    "moderations.create": async () => {
      const answer = await openai.moderations.create({ model: MODERATOR, input: QUESTION });
      return `flagged ${answer.results[0].flagged === true ? "True" : "False"}`;
    },
  },
  "Vercel AI SDK": {
    embed: async () =>
      (await embed({ model: vercel.embedding(EMBEDDER), value: TEXT, maxRetries: 0 })).embedding,
    embedMany: async () =>
      (await embedMany({ model: vercel.embedding(EMBEDDER), values: TEXTS, maxRetries: 0 }))
        .embeddings,
    "generateText (Responses API)": async () =>
      (await generateText({ model: vercel(CHAT), prompt: QUESTION, maxRetries: 0 })).text,
    "streamText (Responses API)": async () =>
      await streamText({ model: vercel(CHAT), prompt: QUESTION, maxRetries: 0 }).text,
    "generateText (chat)": async () =>
      (await generateText({ model: vercel.chat(CHAT), prompt: QUESTION, maxRetries: 0 })).text,
    "streamText (chat)": async () =>
      await streamText({ model: vercel.chat(CHAT), prompt: QUESTION, maxRetries: 0 }).text,
  },
};

for (const [client, made] of Object.entries(calls))
  for (const [call, ask] of Object.entries(made)) {
    const line = { client, call };
    try {
      line.gave = await ask();
    } catch (error) {
      line.error = String(error).slice(0, 500);
    }
    console.log(JSON.stringify(line));
  }
