// The events of a thread with `client.threads.stream()` of `@langchain/langgraph-sdk`, unmodified. Prints a
// JSON line for each piece of text, for each finished message, and at the end.
import { Client } from '@langchain/langgraph-sdk';

const [url, given] = process.argv.slice(2);
const asked = JSON.parse(given);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const client = new Client({ apiUrl: url, apiKey: asked.key ?? null });
const thread = client.threads.stream(asked.thread, { assistantId: asked.chain ?? 'chat' });
if (asked.input) await thread.run.start({ input: asked.input });
for await (const message of thread.messages) {
  for await (const piece of message.text) say({ piece });
  say({ message: await message.text });
}
if (asked.respond !== undefined) {
  const [question] = thread.interrupts;
  say({ asks: question.payload });
  await thread.input.respond({ namespace: question.namespace, interrupt_id: question.interruptId, response: asked.respond });
}
say({ interrupted: thread.interrupted });
await thread.close();
process.exit(0);
