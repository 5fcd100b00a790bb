// Agents of npm `@ag-ui/client`, unmodified. A command is one JSON object in a line of stdin, with the
// agent's name and the action in `does`. A line is printed when a command is done, and whenever the text of
// the last message has changed. An agent that is `resuming` uses the `fetch` of docs/formats.md; any other
// uses Node's own.
import { readFileSync } from 'node:fs';
import readline from 'node:readline';
import './fast.mjs';
import { HttpAgent } from '@ag-ui/client';

// A cut also causes an unhandled rejection: the agent cancels a reader that has failed already, and that call
// throws.
process.on('unhandledRejection', () => {});
console.error = () => {}; // the agent logs each failed run there
const warned = [];
console.warn = (line) => warned.push(String(line));
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const agents = new Map();

const [, recipe] = readFileSync('../../docs/formats.md', 'utf8').match(/```js\n((?:(?!```)[^])*Last-Event-ID[^]*?)```/);
const resuming = new Function(`${recipe}; return resuming;`)();

class Known {
  asked = [];
  events = [];
  runs = 0;
  #shown = '';

  constructor(name, { url, resumes, ...config }) {
    const counted = async (...given) => {
      const answer = await fetch(...given).catch((error) => { this.asked.push('error'); throw error; });
      this.asked.push(answer.status);
      return answer;
    };
    this.agent = new HttpAgent({ url, ...config, fetch: resumes ? resuming(counted) : counted });
    this.agent.subscribe({
      onEvent: ({ event }) => { this.events.push(event); },
      onMessagesChanged: ({ messages }) => {
        const text = messages.at(-1)?.role === 'assistant' ? messages.at(-1).content ?? '' : '';
        if (text !== this.#shown) say({ agent: name, text });
        this.#shown = text;
      },
      onRunFinishedEvent: ({ outcome }) => { this.outcome = outcome; },
    });
  }

  async run({ text, id, messages, ...given }) {
    this.outcome = this.error = undefined;
    this.events.length = this.asked.length = 0;
    if (messages) this.agent.setMessages(messages);
    if (text !== undefined) this.agent.addMessage({ id: id ?? `u${this.runs++}`, role: 'user', content: text });
    try {
      this.result = (await this.agent.runAgent(given)).result;
    } catch (error) {
      this.error = { message: error.message, status: error.status, payload: error.payload };
    }
  }

  told() {
    const { messages, state, pendingInterrupts } = this.agent;
    const { asked, events, error = null, outcome = null, result = null } = this;
    return { messages, state, pendingInterrupts, asked, events, error, outcome, result, warned };
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { agent, does, ...given } = JSON.parse(line);
  const done = () => say({ agent, did: does, ...agents.get(agent).told() });
  if (does === 'open') {
    agents.set(agent, new Known(agent, given));
    done();
  } else if (does === 'abort') {
    agents.get(agent).agent.abortRun();
    done();
  } else {
    agents.get(agent).run(given).then(done);
  }
}
