// One reader of one stream, over a connection that can be cut. The client comes back by itself; this only counts.
import { Gateway, Unreachable } from "./client.js";
import { firstWord, keepFirstWord } from "./kept.js";

const MISSES = 2; // tries in a row without an answer: then it is not the connection alone
const NO_GATEWAY = [502, 504]; // what a proxy says in its place
const SILENT_SECONDS = 20; // more than a heartbeat: a connection that was silent for so long is dead

export class Reader {
  state = "queued"; // connecting for the first time; then open, away, ended, or lost: the client has given up
  events = []; // each as one string: what two readers are compared by
  cuts = 0; resumes = 0; resumedBehind = 0; doubled = 0; logLost = false;
  end = null; // the terminal event's data
  error = null;
  names = []; // of the chain's stages
  chain = ""; model = "";
  #firstWordMs = 0; #misses = 0;
  #isNew;
  #ids = new Set();
  #wire = null;
  #over = new AbortController();
  #changed;
  #hasBegun = () => {};
  /** Over when the first event has come, or when it is known that none will. */
  begun = new Promise((resolve) => { this.#hasBegun = resolve; });

  /** `start` makes the stream of a gateway; `changed` is called whenever there is something to show; `isNew`: the stream starts now. */
  constructor(options, start, changed, isNew = false) {
    this.#changed = changed;
    this.#isNew = isNew;
    this.stream = start(new Gateway(".", { ...options, fetch: this.#fetch }), this.#over.signal);
  }

  /** Whether nobody answers: not a connection that was cut, but one try after the other that found no gateway. */
  get isUnanswered() { return this.#misses >= MISSES; }

  get live() { return !["ended", "lost"].includes(this.state); }

  /** From the question to the first word, by the clock of whoever asked: a replay's own would be wrong. 0 where nobody here has seen it. */
  get firstWordMs() { return this.#firstWordMs || (this.stream.id ? firstWord(this.stream.id) : 0); }

  /** Follow it to its end, through whatever happens; never raises. */
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

  /** Drop the connection as a bad network does; the client comes back behind the last event. */
  cut() {
    if (this.state !== "open") return;
    this.cuts++;
    this.#set("away");
    this.#wire?.abort();
  }

  /** The network is back, or the page is looked at again: connect now, and not after the next pause. Answers whether it has to be run anew. */
  wake(isOnline) {
    if (this.live) this.stream.reconnect(isOnline ? 0 : SILENT_SECONDS);
    return this.state === "lost" && this.error instanceof Unreachable;
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
    if (type === "start") [this.names, this.chain] = [data.stages, data.chain];
    if (data.deployment) this.model = data.deployment;
    if (["done", "failed", "cancelled"].includes(type)) this.end = data;
    this.#changed(this);
  }

  #missed() {
    this.#misses++;
    this.#changed(this);
  }

  #set(state) {
    if (this.state === state || (state === "away" && !this.live)) return;
    this.state = state;
    this.#changed(this);
  }

  #fetch = async (url, init) => {
    const wire = (this.#wire = new AbortController());
    const signal = AbortSignal.any([init.signal, wire.signal]);
    const answer = await fetch(url, { ...init, signal }).catch((error) => {
      if (!signal.aborted) this.#missed();
      throw error;
    });
    if (NO_GATEWAY.includes(answer.status)) this.#missed();
    else this.#misses = 0;
    if (answer.status !== 200) return answer;
    if (this.stream.lastEventId) [this.resumes, this.resumedBehind] = [this.resumes + 1, this.events.length];
    this.#set("open");
    const { readable, writable } = new TransformStream();
    const away = () => { if (wire === this.#wire && !this.stream.ended) this.#set("away"); };
    answer.body.pipeTo(writable).then(away, away);
    return new Response(readable, { status: answer.status, headers: answer.headers });
  };
}
