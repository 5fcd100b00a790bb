// One reader of one stream, over a connection that can be cut. The client reconnects by itself; this class
// only counts.
import { Gateway, Unreachable } from "./client.js";
import { firstWord, keepFirstWord } from "./kept.js";

const SILENT_SECONDS = 20; // longer than a heartbeat: after this silence a connection is dead

export class Reader {
  // queued: connecting for the first time; then open, away (cut), ended, or lost (the client has given up)
  state = "queued";
  events = []; // each event as one string, to compare two readers
  cuts = 0; resumes = 0; resumedBehind = 0; doubled = 0; logLost = false;
  end = null; // the terminal event's data
  error = null;
  names = []; // names of the chain's stages
  chain = ""; model = "";
  #firstWordMs = 0;
  #isNew;
  #ids = new Set();
  #wire = null;
  #over = new AbortController();
  #changed;
  #hasBegun = () => {};
  /** Resolved when the first event has arrived, or when it is known that no event will arrive. */
  begun = new Promise((resolve) => { this.#hasBegun = resolve; });

  /** `start` takes a gateway and returns the stream; `changed` is called after each visible change; `isNew`:
   * the stream starts now. */
  constructor(options, start, changed, isNew = false) {
    this.#changed = changed;
    this.#isNew = isNew;
    this.stream = start(new Gateway(".", { ...options, fetch: this.#fetch }), this.#over.signal);
  }

  get live() { return !["ended", "lost"].includes(this.state); }

  /** Milliseconds from the question to the first word, measured by the browser that asked, because a replay
   * would measure a wrong time. 0 if this browser did not receive the first word live. */
  get firstWordMs() { return this.#firstWordMs || (this.stream.id ? firstWord(this.stream.id) : 0); }

  /** Follow the stream to its end, through all failures; never throws. */
  async run() {
    const began = performance.now();
    this.#set("queued");
    this.error = null;
    try {
      for await (const event of this.stream) {
        if (event.text && this.#isNew && !this.#firstWordMs) keepFirstWord(this.stream.id, (this.#firstWordMs = performance.now() - began));
        this.#take(event);
      }
      this.#set("ended");
    } catch (error) {
      if (this.#over.signal.aborted) return;
      this.error = error;
      this.#set("lost");
    } finally {
      this.#hasBegun();
    }
  }

  /** Drop the connection, as a bad network does. The client reconnects and continues after the last event. */
  cut() {
    if (this.state !== "open") return;
    this.cuts++;
    this.#set("away");
    this.#wire?.abort();
  }

  /** The network is back, or a person looks at the page again: connect now and skip the pause. Returns
   * whether `run` must be called again. */
  wake(isOnline) {
    if (this.live) this.stream.reconnect(isOnline ? 0 : SILENT_SECONDS);
    return this.state === "lost" && this.error instanceof Unreachable;
  }

  /** Stop reading. The stream continues without this reader. */
  close() { this.#over.abort(); }

  #take({ id, type, data }) {
    if (type === "reset" && data.reason === "log_lost") {
      [this.events, this.logLost] = [[], true];
      this.#ids.clear();
    } else {
      if (this.#ids.has(id)) this.doubled++;
      this.#ids.add(id);
      this.events.push(`${id}\n${type}\n${JSON.stringify(data)}`);
    }
    this.#hasBegun();
    if (type === "start") [this.names, this.chain] = [data.stages, data.chain];
    if (data.deployment) this.model = data.deployment;
    if (["done", "failed", "cancelled"].includes(type)) this.end = data;
    this.#changed(this);
  }

  #set(state) {
    if (this.state === state || (state === "away" && !this.live)) return;
    this.state = state;
    this.#changed(this);
  }

  #fetch = async (url, init) => {
    const wire = (this.#wire = new AbortController());
    const answer = await fetch(url, { ...init, signal: AbortSignal.any([init.signal, wire.signal]) });
    if (answer.status !== 200) return answer;
    if (this.stream.lastEventId) [this.resumes, this.resumedBehind] = [this.resumes + 1, this.events.length];
    this.#set("open");
    const { readable, writable } = new TransformStream();
    const away = () => { if (wire === this.#wire && !this.stream.ended) this.#set("away"); };
    answer.body.pipeTo(writable).then(away, away);
    return new Response(readable, { status: answer.status, headers: answer.headers });
  };
}
