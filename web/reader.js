// One reader of one stream, over a connection that can be cut. The client comes back by itself; this only counts.
import { Gateway } from "./client.js";

export class Reader {
  state = "queued"; // connecting for the first time; then open, away, ended, or lost: the client has given up
  events = []; // each as one string: what two readers are compared by
  cuts = 0; resumes = 0; resumedFrom = ""; doubled = 0; logLost = false;
  firstTokenMs = 0; // since it began to ask
  end = null; // the terminal event's data
  error = null;
  names = []; // of the chain's stages
  #ids = new Set();
  #wire = null;
  #over = new AbortController();
  #changed;
  #hasBegun = () => {};
  /** Over when the first event has come, or when it is known that none will. */
  begun = new Promise((resolve) => { this.#hasBegun = resolve; });

  /** `start` makes the stream of a gateway; `changed` is called whenever there is something to show. */
  constructor(options, start, changed) {
    this.#changed = changed;
    this.stream = start(new Gateway(".", { ...options, fetch: this.#fetch }), this.#over.signal);
  }

  get live() { return !["ended", "lost"].includes(this.state); }

  /** Follow it to its end, through whatever happens; never raises. */
  async run() {
    const began = performance.now();
    this.#set("queued");
    this.error = null;
    try {
      for await (const event of this.stream) {
        if (event.text && !this.firstTokenMs) this.firstTokenMs = performance.now() - began;
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

  /** Drop the connection as a bad network does; the client comes back behind the last event. */
  cut() {
    this.cuts++;
    this.#set("away");
    this.#wire?.abort();
  }

  /** Read no more; the stream goes on without this reader. */
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
    if (type === "start") this.names = data.stages;
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
    if (this.stream.lastEventId) [this.resumes, this.resumedFrom] = [this.resumes + 1, this.stream.lastEventId];
    this.#set("open");
    const { readable, writable } = new TransformStream();
    const away = () => { if (wire === this.#wire && !this.stream.ended) this.#set("away"); };
    answer.body.pipeTo(writable).then(away, away);
    return new Response(readable, { status: answer.status, headers: answer.headers });
  };
}
