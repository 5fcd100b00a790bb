// Runs through `@langchain/langgraph-sdk`, as it is: a JSON line for each part of a run's stream or, as `useStream`
// shows them, for each change of a thread's messages. With `speed` its clock runs so many times as fast.
import { Client } from '@langchain/langgraph-sdk';
import { StreamOrchestrator } from '@langchain/langgraph-sdk/ui';

const [url, mode, given] = process.argv.slice(2);
const asked = JSON.parse(given);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

if (asked.speed) {
  const wait = globalThis.setTimeout;
  globalThis.setTimeout = (work, ms, ...more) => wait(work, ms / asked.speed, ...more);
}
const client = new Client({ apiUrl: url, apiKey: asked.key ?? null });
const chain = asked.chain ?? 'chat';
const input = { messages: [{ type: 'human', content: asked.question }] };

async function stream() {
  const parts = client.runs.stream(asked.thread ?? null, chain, {
    input,
    streamMode: ['values', 'messages-tuple', 'updates', 'custom'],
    onRunCreated: (run) => say({ run }),
  });
  for await (const part of parts) say(part);
}

// What React's hook is around; `question` is submitted, or the run `join` is read from its start.
async function use() {
  const stored = new Map();
  globalThis.window = {};
  const storage = {
    getItem: (key) => stored.get(key) ?? null,
    setItem: (key, value) => stored.set(key, value),
    removeItem: (key) => stored.delete(key),
  };
  const options = { reconnectOnMount: () => storage, onError: (error) => say({ error: error.message }) };
  const hook = new StreamOrchestrator(options, {
    getClient: () => client,
    getAssistantId: () => chain,
    getMessagesKey: () => 'messages',
  });
  hook.initThreadId(asked.thread);
  hook.trackStreamMode('messages-tuple', 'values');
  let shown = '';
  hook.subscribe(() => {
    const messages = hook.messageInstances.map((one) => [one.getType(), one.id, one.text]);
    if (JSON.stringify(messages) !== shown) say({ messages });
    shown = JSON.stringify(messages);
  });
  process.stdin.on('data', () => hook.stop());
  await (asked.join ? hook.joinStream(asked.join) : hook.submit(input));
  say({ loading: hook.isLoading, run: stored.get(`lg:stream:${asked.thread}`) ?? null });
  process.stdin.destroy();
}

// A run, and one more for each answer to what the one before has asked; what each asks, and the state at its end.
async function answer() {
  const turns = [{ input: asked.input }, ...asked.answers.map((resume) => ({ command: { resume } }))];
  for (const turn of turns) {
    let values;
    for await (const part of client.runs.stream(asked.thread, chain, turn)) if (part.event === 'values') values = part.data;
    const { tasks } = await client.threads.getState(asked.thread);
    say({ asked: tasks.flatMap((task) => task.interrupts.map((one) => one.value)), values });
  }
}

await { stream, use, answer }[mode]();
