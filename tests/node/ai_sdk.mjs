// Chats of npm `ai` 5, 6 and 7, unmodified. A command is one JSON object in a line of stdin, with the chat's
// name and the action in `does`. A line is printed when a command is done, and whenever the displayed text
// has changed.
import readline from 'node:readline';

const VERSIONS = { 5: await import('ai5'), 6: await import('ai6'), 7: await import('ai7') };
const TRANSPORTS = {
  '@ai-sdk/workflow': (await import('@ai-sdk/workflow/client')).WorkflowChatTransport,
  '@workflow/ai': (await import('@workflow/ai')).WorkflowChatTransport,
};
console.error = () => {}; // a reconnecting transport logs each broken connection there
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const chats = new Map();

// The parts that are not void, by the rules of docs/formats.md.
const nameOf = (part) => part.toolCallId ?? part.providerMetadata?.holdfast?.part ?? part.data?.part;
const standing = (message) => message.parts.reduce((parts, part) => part.type === 'data-replay' ? []
  : part.type !== 'data-reset' ? [...parts, part]
  : parts.filter((one) => !part.data.parts.includes(nameOf(one))), []);

const textOf = (parts) => parts.filter((part) => part.type === 'text').map((part) => part.text).join('');

// The state that `useChat` keeps, without React.
class State {
  status = 'ready';
  error = undefined;
  #messages;
  #shown = '';

  constructor(name, messages) {
    this.name = name;
    this.#messages = messages;
  }

  get messages() { return this.#messages; }

  set messages(messages) {
    this.#messages = messages;
    const text = this.last ? textOf(standing(this.last)) : '';
    if (text !== this.#shown) say({ chat: this.name, text });
    this.#shown = text;
  }

  get last() {
    const last = this.#messages.at(-1);
    return last?.role === 'assistant' ? last : undefined;
  }

  pushMessage = (message) => { this.messages = this.messages.concat(message); };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (index, message) => { this.messages = this.messages.with(index, structuredClone(message)); };
  snapshot = (thing) => structuredClone(thing);
}

// Node reports a broken connection as `TypeError: terminated`, which no version of `ai` recognises as a
// broken connection; browsers use other words.
async function asInChromium(...asked) {
  const answer = await fetch(...asked);
  if (!answer.ok || !answer.body) return answer;
  const reader = answer.body.getReader();
  const body = new ReadableStream({
    pull: async (to) => {
      const { done, value } = await reader.read().catch(() => { throw new TypeError('network error'); });
      if (done) to.close();
      else to.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
  return new Response(body, { status: answer.status, headers: answer.headers });
}

// The answers of a gateway, one for each request. A connection may break after an answer when the client has
// read all of it: data still in transit is lost to a client.
const given = (answers) => async () => {
  const { text, cut } = answers.shift();
  let sent = false;
  const pull = async (to) => {
    if (!sent) to.enqueue(new TextEncoder().encode(text));
    else if (!cut) to.close();
    else {
      await new Promise(setImmediate);
      throw new TypeError(cut);
    }
    sent = true;
  };
  const body = new ReadableStream({ pull }, { highWaterMark: 0 });
  return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
};

function open({ chat: name, version, api, browser, messages = [], ended, answers, tools, approvals, workflow, named, ...options }) {
  const { AbstractChat, DefaultChatTransport } = VERSIONS[version];
  const state = new State(name, messages);
  const seen = { data: [], finish: null };
  const Transport = TRANSPORTS[workflow] ?? DefaultChatTransport;
  const transport = new Transport({
    api,
    ...options,
    ...(workflow && {
      // As docs/formats.md says: the chat then has its name, and can be found again after a reload.
      ...(named && { prepareSendMessagesRequest: ({ id, messages: all, body }) => ({ body: { id, messages: all, ...body } }) }),
      fetch: async (url, init) => {
        const answer = await fetch(url, init);
        (seen.asked ??= []).push([init?.method ?? 'GET', new URL(url).search, answer.status]);
        return answer;
      },
    }),
    ...(browser && { fetch: asInChromium }),
    ...(answers && { fetch: given(answers) }),
    ...(ended && {
      prepareReconnectToStreamRequest: ({ id }) => ({ api: `${api}/${id}/stream?ended=true` }),
    }),
  });
  class Chat extends AbstractChat {}
  const chat = new Chat({
    id: name,
    state,
    transport,
    onData: (part) => seen.data.push(part),
    onFinish: ({ message, messages: all, ...how }) => { seen.finish = how; },
    onToolCall: ({ toolCall }) => {
      if (!tools) throw new Error('no tool is the client\'s');
      (seen.calls ??= []).push(toolCall);
    },
    sendAutomaticallyWhen: approvals ? VERSIONS[version].lastAssistantMessageIsCompleteWithApprovalResponses
      : VERSIONS[version].lastAssistantMessageIsCompleteWithToolCalls,
  });
  chats.set(name, { chat, state, seen, opened: { chat: name, version, api, browser, ended, answers, tools, approvals, workflow, named, ...options } });
}

// Run the code of the documentation, without React. Its pause of one second is left out here.
function documented({ chat: name, version, code }) {
  const { AbstractChat, DefaultChatTransport } = VERSIONS[version];
  const state = new State(name, []);
  const useChat = (init) => new (class Chat extends AbstractChat {})({ ...init, state });
  const names = ['DefaultChatTransport', 'useChat', 'id', 'messages', 'setTimeout'];
  const made = new Function(...names, `${code}; return { chat, standing, cancel };`)(
    DefaultChatTransport, useChat, name, [], setImmediate,
  );
  chats.set(name, { ...made, state, seen: {} });
}

const VERBS = {
  open,
  documented,
  // Reload the page, with the stored messages.
  reload: ({ chat }) => {
    const { state, opened } = chats.get(chat);
    open({ ...opened, messages: JSON.parse(JSON.stringify(state.messages)) });
  },
  send: ({ chat, text, files }) => chats.get(chat).chat.sendMessage({ text, ...(files && { files }) }),
  again: ({ chat }) => chats.get(chat).chat.sendMessage(),
  regenerate: ({ chat }) => chats.get(chat).chat.regenerate(),
  resume: ({ chat }) => chats.get(chat).chat.resumeStream(),
  // Send the answer of a tool of the page. After the last answer the conversation continues by itself.
  answer: async ({ chat: name, ...given }) => {
    const { chat } = chats.get(name);
    await (chat.addToolOutput ?? chat.addToolResult).call(chat, given);
    while (chat.status !== 'ready' && chat.status !== 'error') await new Promise(setImmediate);
  },
  // Approve or refuse a tool call. After the last decision the conversation continues by itself.
  approve: async ({ chat: name, ...given }) => {
    const { chat } = chats.get(name);
    await chat.addToolApprovalResponse(given);
    while (chat.status !== 'ready' && chat.status !== 'error') await new Promise(setImmediate);
  },
  stop: ({ chat }) => chats.get(chat).chat.stop(),
  cancel: ({ chat }) => chats.get(chat).cancel(),
};

async function run({ does, ...given }) {
  await VERBS[does](given);
  const { chat, state, seen, ...made } = chats.get(given.chat);
  const parts = state.last ? (made.standing ?? standing)(state.last) : [];
  say({
    chat: given.chat,
    did: does,
    status: chat.status,
    error: chat.error?.message ?? null,
    ...seen,
    shown: textOf(parts),
    parts,
    messages: chat.messages,
  });
}

for await (const line of readline.createInterface({ input: process.stdin })) void run(JSON.parse(line));
