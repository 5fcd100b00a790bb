// Follows a stream with npm's @microsoft/fetch-event-source: node fetch_event_source.mjs URL [BODY]. With a body it
// POSTs, and repeats the POST with its Idempotency-Key. One JSON line for each event, and one for each connection.
//
// The library takes an event for seen when its `id:` line has come, so a cut inside an event would lose it.
// `fetch` is its own seam for that: it gets the cursor of the last event that was really given.
import { createRequire } from "node:module";

// It is made for browsers: it asks `window` for its timers, and `document` whether somebody looks.
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
  onerror: () => 10, // milliseconds: how long it pauses is for its user to say
});
