// Follows a stream with npm's @microsoft/fetch-event-source: node fetch_event_source.mjs URL [BODY]. With a
// body it sends a POST, and repeats the POST with its Idempotency-Key. Prints one JSON line for each event,
// and one for each connection.
//
// The library counts an event as received when its `id:` line has come, so a cut inside an event would lose
// the event. The library's `fetch` option can correct this: it sends the cursor of the last event that was
// really delivered.
import { createRequire } from "node:module";

// The library is made for browsers: it uses the timers of `window`, and asks `document` whether the page is
// visible.
globalThis.window = globalThis;
globalThis.document = new EventTarget();
const { fetchEventSource } = createRequire(import.meta.url)("@microsoft/fetch-event-source");
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const [url, body] = process.argv.slice(2);
const ended = new AbortController();
let cursor = "";
const starting = body ? { method: "POST", body, headers: { "content-type": "application/json", "idempotency-key": crypto.randomUUID() } } : {};
await fetchEventSource(url, {
  ...starting,
  signal: ended.signal,
  fetch: (input, init) => {
    const { "last-event-id": _, ...headers } = init.headers;
    return fetch(input, { ...init, headers: cursor ? { ...headers, "last-event-id": cursor } : headers });
  },
  async onopen(answer) {
    say({ open: answer.status, stream: answer.headers.get("x-stream-id") });
    if (answer.status !== 200) throw new Error(`HTTP ${answer.status}`);
  },
  onmessage({ id, event, data }) {
    cursor = id;
    say({ kind: event || "message", id, data });
    if (["done", "failed", "cancelled"].includes(event)) ended.abort();
  },
  onclose() {
    throw new Error("closed, and not at the end");
  },
  onerror: () => 10, // milliseconds: the user of the library sets the pause
});
