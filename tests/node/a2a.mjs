// npm's `@a2a-js/sdk`, unmodified: node a2a.mjs URL CHAIN CALL, where CALL is one of the calls below, in
// JSON. Prints a JSON line for each event, then one with the result or the error.
import { CancelTaskRequest, GetTaskRequest, SendMessageRequest, StreamResponse, SubscribeToTaskRequest, Task } from '@a2a-js/sdk';
import { ClientFactory } from '@a2a-js/sdk/client';

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const [url, chain, call] = process.argv.slice(2);
const [[verb, given]] = Object.entries(JSON.parse(call));
const client = await new ClientFactory().createFromUrl(`${url}/a2a/${chain}/`);

async function all(events) {
  for await (const event of events) say({ event: StreamResponse.toJSON(event) });
  return true;
}

const calls = {
  stream: async (body) => all(client.sendMessageStream(SendMessageRequest.fromJSON(body))),
  send: async (body) => Task.toJSON(await client.sendMessage(SendMessageRequest.fromJSON(body))),
  get: async (id) => Task.toJSON(await client.getTask(GetTaskRequest.fromJSON({ id }))),
  cancel: async (id) => Task.toJSON(await client.cancelTask(CancelTaskRequest.fromJSON({ id }))),
  subscribe: async (id) => all(client.resubscribeTask(SubscribeToTaskRequest.fromJSON({ id }))),
};

try {
  say({ result: await calls[verb](given) });
} catch (error) {
  say({ error: error.name, message: error.message });
}
process.exit(0);
