// Reads a stream with npm's `@durable-streams/client`, as it is, and as an application does that wants all of
// it: after a broken connection it begins again at the last offset that it was given. A JSON line for each
// batch, for each beginning, for each error that the client has told of, and for the end.
//   node durable.mjs <url> <sse|long-poll|true|false> [<offset>] [<options of stream(), as JSON>]
import { stream } from '@durable-streams/client';

const [url, mode, from = '-1', options = '{}'] = process.argv.slice(2);
const live = { true: true, false: false }[mode] ?? mode;
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
console.warn = (text) => say({ warning: text });

const GRACE_MS = 250;

let offset = from;
const told = (error) => say({ error: error.name, code: error.code, status: error.status, text: error.message });
// What a broken connection is to the client; anything else is an answer, and final.
const broken = (error) => error.status === undefined && error.code !== 'PARSE_ERROR';

// Resolves when the client has handed over all there will be, or when it has ended before. What it hands over
// after that, or after an error, is not taken: it comes again from the last offset on. The client's `closed` is
// no sign of the end: it is resolved before the last batch is handed over, and stays so when that one's body
// breaks and never is.
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
