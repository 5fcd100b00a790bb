// Reads a stream with npm's `@durable-streams/client`, unmodified, as an application that wants all messages:
// after a broken connection it starts again at the last offset that it received. Prints a JSON line for each
// batch, each start, each error that the client reported, and the end.
//   node durable.mjs <url> <sse|long-poll|true|false> [<offset>] [<options of stream(), as JSON>]
import { stream } from '@durable-streams/client';

const [url, mode, from = '-1', options = '{}'] = process.argv.slice(2);
const live = { true: true, false: false }[mode] ?? mode;
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
console.warn = (text) => say({ warning: text });

const GRACE_MS = 250;

let offset = from;
const told = (error) => say({ error: error.name, code: error.code, status: error.status, text: error.message });
// How the client reports a broken connection. Any other error is an answer, and final.
const broken = (error) => error.status === undefined && error.code !== 'PARSE_ERROR';

// Resolves when the client has delivered all messages, or has stopped before. Messages that the client
// delivers after its stop or after an error are ignored: they come again from the last offset. The client's
// `closed` does not show the end: it is resolved before the last batch is delivered, and stays resolved if
// the body of that batch breaks and the batch never comes.
async function read() {
  const backoffOptions = { initialDelay: 10, maxDelay: 100, multiplier: 1.3 };
  const response = await stream({ url, offset, live, backoffOptions, ...JSON.parse(options) });
  say({ begun: offset, type: response.contentType });
  let over = false;
  return new Promise((resolve, reject) => {
    response.subscribeJson((batch) => {
      if (over) return;
      offset = batch.offset;
      say({ batch: batch.items, offset, upToDate: batch.upToDate, closed: batch.streamClosed });
      if (batch.streamClosed || (live === false && batch.upToDate)) resolve(response);
    });
    response.closed.then(
      () => {
        setTimeout(() => {
          over = true;
          resolve(undefined);
        }, GRACE_MS);
      },
      (error) => {
        over = true;
        reject(error);
      },
    );
  });
}

for (;;) {
  try {
    const response = await read();
    if (response) {
      say({ ended: response.streamClosed, offset: response.offset, upToDate: response.upToDate });
      break;
    }
  } catch (error) {
    told(error);
    if (!broken(error)) break;
  }
}
