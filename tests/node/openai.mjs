// npm's `openai`, unmodified: node openai.mjs URL KEY CALL, where CALL is one of the calls below, in JSON.
// Prints a JSON line for each event and for each cut connection, then one with the result or the error.
// `create` and `follow` do not treat a cut as an error: they continue after the last event, as the package's
// documentation says. Its clock runs fifty times as fast as the gateway's, because the length of its pauses
// is not tested (fast.mjs).
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import './fast.mjs';
import OpenAI, { APIConnectionError, APIError } from 'openai';
import { ResponseStream } from 'openai/lib/responses/ResponseStream';

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const [url, key, call] = process.argv.slice(2);
const [[verb, given]] = Object.entries(JSON.parse(call));
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: given.retries ?? 0, timeout: 10 ** 7 });
const ENDS = new Set(['response.completed', 'response.failed', 'response.incomplete']);

// Continues after a cut connection until the response has ended.
async function follow(stream, id, after) {
  for (;;) {
    try {
      stream ??= await client.responses.retrieve(id, { stream: true, ...(after && { starting_after: after }) });
      for await (const event of stream) {
        say({ event });
        [id, after] = [event.response?.id ?? id, event.sequence_number];
        if (ENDS.has(event.type)) return event.response;
      }
      throw new Error('a clean close before the end');
    } catch (error) {
      if (!(error instanceof APIConnectionError || error.message === 'terminated')) throw error;
      say({ cut: error.name });
      stream = undefined;
    }
  }
}

const calls = {
  models: async () => (await client.models.list()).data.map((model) => model.id),
  chat: async ({ body, headers }) => {
    const stream = await client.chat.completions.create({ ...body, stream: true }, { headers });
    for await (const chunk of stream) say({ event: chunk });
    return true;
  },
  chatHelper: async ({ body }) => client.chat.completions.stream(body).finalChatCompletion(),
  whole: async ({ body }) => client.chat.completions.create(body),
  create: async ({ body, headers }) => {
    const stream = await client.responses.create({ ...body, stream: true }, { headers });
    return follow(stream);
  },
  wait: async ({ body }) => client.responses.create(body),
  follow: async ({ id, after }) => follow(undefined, id, after),
  helper: async ({ id, after }) => {
    const stream = client.responses.stream({ response_id: id, starting_after: after });
    for await (const event of stream) say({ event });
    return stream.finalResponse();
  },
  retrieve: async ({ id }) => client.responses.retrieve(id),
  cancel: async ({ id }) => client.responses.cancel(id),
  // Gives the helper the events of many streams, one stream in each line, without a gateway.
  replay: async ({ file }) => {
    const texts = [];
    for await (const line of createInterface({ input: createReadStream(file) })) {
      const lines = JSON.parse(line).map((event) => `${JSON.stringify(event)}\n`);
      const source = new ReadableStream({
        start(controller) {
          for (const one of lines) controller.enqueue(new TextEncoder().encode(one));
          controller.close();
        },
      });
      texts.push((await ResponseStream.fromReadableStream(source).finalResponse()).output_text);
    }
    return texts;
  },
};

try {
  say({ result: await calls[verb](given) });
} catch (error) {
  const { name, message, status, code, type, param } = error;
  say({ error: { name, message, status, code, type, param, ours: error instanceof APIError } });
}
