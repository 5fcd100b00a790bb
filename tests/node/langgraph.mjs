// Runs with `@langchain/langgraph-sdk`, unmodified. Prints a JSON line for each part of a run's stream or, as
// `useStream` shows them, for each change of a thread's messages. `speed` is the factor by which its clock
// runs faster.
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

// The code inside React's hook: `question` is submitted, or the run `join` is read from its start.
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

// Use a new thread for each case: one run, and one more run for each answer to the question of the run
// before. An answer is the value for `command.resume`, or with `each` the answers keyed by the values of the
// questions. Prints the questions of each run, from its stream and from the thread, and the state at the end.
async function answer() {
  for (const one of asked.cases) say({ name: one.name, ...(await answered(one).catch((error) => ({ turns: [], error: String(error) }))) });
}

async function answered({ chain, input, answers }) {
  const thread = (await client.threads.create()).thread_id;
  const turns = [];
  let open = [];
  for (const one of [undefined, ...answers]) {
    const resume = one?.each ? Object.fromEntries(open.map(({ id, value }) => [id, one.each[value]])) : one?.one;
    let values;
    for await (const part of client.runs.stream(thread, chain, one ? { command: { resume } } : { input })) {
      if (part.event === 'error') throw new Error(JSON.stringify(part.data));
      if (part.event === 'values') values = part.data;
    }
    open = values.__interrupt__ ?? [];
    const { tasks, next, values: state } = await client.threads.getState(thread);
    const { status } = await client.threads.get(thread);
    const [run] = await client.runs.list(thread);
    const same = JSON.stringify(tasks.flatMap((task) => task.interrupts)) === JSON.stringify(open);
    turns.push({ asked: open.map(({ value }) => value), same, values, state, next, thread: status, run: run.status });
  }
  return { turns };
}

await { stream, use, answer }[mode]();
