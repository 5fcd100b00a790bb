// One front end does one thing: node clients.mjs CLIENT URL THREAD RUN TEXT [VERB]. Prints one JSON line: what is shown
// at the end, the error, if there is one, and the status of each answer.
const [client, url, thread, run, text, verb = 'ask'] = process.argv.slice(2);
process.on('unhandledRejection', () => {});
console.error = console.warn = () => {};

const asked = [];
const counted = async (...given) => {
  const answer = await fetch(...given).catch((error) => { asked.push('error'); throw error; });
  asked.push(answer.status);
  return answer;
};

async function tanstack() {
  const { ChatClient, fetchServerSentEvents } = await import('@tanstack/ai-client');
  const connection = fetchServerSentEvents(url, { fetchClient: counted });
  if (verb === 'join') {
    let shown = '';
    for await (const chunk of connection.joinRun(run)) if (chunk.type === 'TEXT_MESSAGE_CONTENT') shown += chunk.delta;
    return { shown };
  }
  const chat = new ChatClient({ connection, threadId: thread });
  await chat.sendMessage(text);
  if (verb === 'twice') await chat.sendMessage(text);
  const messages = chat.getMessages();
  const last = messages.at(-1);
  const shown = last.role === 'assistant' ? last.parts.filter((part) => part.type === 'text') : [];
  const pending = chat.getInterrupts?.().length ?? 0;
  return { shown: shown.map((part) => part.content).join(''), error: chat.getError()?.message, count: messages.length, pending };
}

async function copilotkit() {
  const { CopilotKitCore } = await import('@copilotkit/core');
  const { HttpAgent } = await import('@ag-ui/client');
  const agent = new HttpAgent({ url, threadId: thread, fetch: counted });
  const core = new CopilotKitCore({ agents__unsafe_dev_only: { default: agent } });
  const errors = [];
  core.subscribe({ onError: ({ error }) => { errors.push(error.message); } });
  agent.subscribe({ onRunErrorEvent: ({ event }) => { errors.push(event.message); } });
  for (let times = verb === 'twice' ? 2 : 1; times > 0; times -= 1) {
    agent.addMessage({ id: `u${times}`, role: 'user', content: text });
    await core.runAgent({ agent }).catch((error) => { errors.push(error.message); });
  }
  const last = agent.messages.at(-1);
  const shown = last?.role === 'assistant' ? last.content ?? '' : '';
  return { shown, error: errors[0], count: agent.messages.length, pending: agent.pendingInterrupts?.length };
}

const told = await ({ tanstack, copilotkit })[client]().catch((error) => ({ error: error.message }));
process.stdout.write(`${JSON.stringify({ shown: '', ...told, error: told.error ?? null, asked })}\n`, () => process.exit(0));
