// Greedy answers of llama.cpp to prompts in token ids: `node llama_cpp.mjs MODEL.gguf < PROMPTS.json`, one JSON line each.
// Needs `npm install node-llama-cpp`, which carries llama.cpp as a prebuilt library.
import { readFileSync } from "node:fs";
import { getLlama } from "node-llama-cpp";

const llama = await getLlama({ gpu: false, build: "never", maxThreads: 1 }); // its threads spin: on a busy machine more are slower
const model = await llama.loadModel({ modelPath: process.argv[2] });
for (const { text, most } of JSON.parse(readFileSync(0, "utf8"))) {
  const context = await model.createContext({ contextSize: 512, threads: 1 });
  const ids = model.tokenize(text, true);
  const answer = [];
  for await (const token of context.getSequence().evaluate(ids, { temperature: 0, yieldEogToken: true })) {
    answer.push(token);
    if (answer.length >= most || model.isEogToken(token)) break;
  }
  console.log(JSON.stringify({ ids, answer, said: model.detokenize(answer) }));
  await context.dispose();
}
