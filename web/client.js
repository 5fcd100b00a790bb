/**
 * The JavaScript client: a stream is followed to its end through any cut, and no event comes twice.
 *
 *     const gateway = new Gateway("http://127.0.0.1:7071");
 *     for await (const event of gateway.stream({ user: "Who are you?" })) console.log(event.text);
 *
 * A POST carries an Idempotency-Key and is repeated until it is answered; from then on each connection goes on
 * behind the last event. One module without dependencies, for browsers and for Node 20 or later; the same
 * behaviours as gateway/client/__init__.py, and held by the same tests. client.d.ts is made from it by scripts/vendor.
 */

const SILENCE_SECONDS = 45; // three heartbeats missed: the connection is dead
const PATIENCE_SECONDS = 120;
const BACKOFF_SECONDS = [0.25, 10];
const AGAIN = new Set([408, 429, 500, 502, 503, 504]);
const TERMINAL = new Set(["done", "failed", "cancelled"]);
const EVENT_LIMIT = 16 * 1024 * 1024; // characters; longest unfinished event
const LONGEST_RETRY_MS = 999_999_999; // 11 days; the highest accepted `retry:`

/** @typedef {{ id: string, type: string, data: string }} Message One dispatched event, as WHATWG's rules give it. */

/**
 * @typedef {object} Stage One run of one stage, as far as it has come.
 * @property {string} name
 * @property {number} run Counts from 1.
 * @property {string} parent Of a graph's node, the chain's stage that it belongs to; else empty.
 * @property {"started" | "finished"} state
 * @property {string} text The text that stands.
 * @property {StreamEvent[]} events Its `tool` and `custom` events that stand.
 */

/**
 * @typedef {object} Result What a stream came to.
 * @property {string} text The last stage's text.
 * @property {{ name: string, run: number, state: string, text: string }[]} stages The runs of its stages, in order.
 * @property {Record<string, number>} usage
 * @property {string} finishReason
 * @property {{ id: string, value: unknown, response_schema?: object }[]} interrupts What a graph has stopped to ask.
 * @property {boolean} interrupted Whether it has: `resume` answers it.
 */

/**
 * @typedef {object} Webhook Where the gateway tells of a stream's end.
 * @property {string} url
 * @property {("done" | "failed" | "cancelled" | "interrupted")[]} [events] All by default.
 * @property {"unseen"} [when] Only if no reader has had the end `within_seconds` after it.
 * @property {number} [within_seconds]
 */

/**
 * @typedef {object} Question Exactly one of `user`, `messages` and `input`.
 * @property {string} [user]
 * @property {{ role: string, content: unknown }[]} [messages]
 * @property {unknown} [input]
 * @property {string} [chain]
 * @property {Record<string, unknown>} [params]
 * @property {Record<string, unknown>} [metadata]
 * @property {string} [thread] The conversation that it goes on with.
 * @property {"reject" | "enqueue" | "interrupt" | "rollback"} [multitask_strategy] What happens where another stream of the thread runs.
 * @property {Webhook} [webhook] Whom to tell of the stream's end.
 * @property {string} [key] The Idempotency-Key, a random one by default: the same key is the same stream.
 * @property {AbortSignal} [signal] Ends the following, and not the stream.
 * @property {(open: boolean) => void} [onConnection] Told that a connection carries the stream, and that one is lost.
 */

/**
 * @typedef {object} Following
 * @property {AbortSignal} [signal] Ends the following, and not the stream.
 * @property {(open: boolean) => void} [onConnection] Told that a connection carries the stream, and that one is lost.
 */

/**
 * @typedef {object} Saved How far the following of a stream has come, as plain JSON. `Gateway.follow` goes on from it.
 * @property {string} id The stream's id; empty where the gateway has not told it yet.
 * @property {string} after The id of the last event.
 * @property {{ name: string, run: number, parent: string, state: "started" | "finished", text: string,
 *   events: { id: string, type: string, data: any }[] }[]} stages What the events so far have come to.
 * @property {string[]} begun The id of the event with which each stage began.
 * @property {{ path: string, key: string, body?: object }} [start] Without an id: the request that starts it.
 */

/**
 * @typedef {object} Options
 * @property {string} [key] An API key or a JWT.
 * @property {number} [patience] Seconds without a sign of the gateway, after which it is Unreachable.
 * @property {number} [silence] Seconds without a byte, after which a connection is given up.
 * @property {Record<string, string>} [headers] For every request.
 * @property {typeof globalThis.fetch} [fetch] Instead of the global one.
 */

/** The gateway's client failed. */
export class GatewayError extends Error {
  get name() { // fixed text, because a minifier changes the class's own name
    return "GatewayError";
  }
}

/** The gateway has refused a request. */
export class Refused extends GatewayError {
  get name() {
    return "Refused";
  }

  /**
   * @param {number} status HTTP's.
   * @param {Record<string, any>} problem RFC 9457's document.
   * @param {number | undefined} retryAfter Seconds, where the answer names any.
   */
  constructor(status, problem, retryAfter) {
    super(problem.detail || `HTTP ${status}`);
    this.status = status;
    /** @type {string} The problem's stable code. */
    this.code = problem.code ?? "";
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}

/** Nothing was heard of the gateway for as long as the client's patience lasts; `cause` is the last failure. */
export class Unreachable extends GatewayError {
  get name() {
    return "Unreachable";
  }
}

/** The stream ended without a result. */
export class StreamFailed extends GatewayError {
  get name() {
    return "StreamFailed";
  }

  /**
   * @param {{ code: string, message: string, retryable: boolean }} error
   * @param {string} text What it had said.
   */
  constructor(error, text) {
    super(error.message);
    this.code = error.code;
    this.retryable = error.retryable;
    this.text = text;
  }
}

/** Somebody has cancelled the stream. */
export class StreamCancelled extends GatewayError {
  get name() {
    return "StreamCancelled";
  }
}

/** A connection has ended or was never opened; the next one continues. Leaves this module only as a cause. */
class Lost extends Error {}

/** One event: its id, its type (`message` for text) and its data. Types may be added to the protocol. */
export class StreamEvent {
  /**
   * @param {string} id
   * @param {string} type
   * @param {any} data
   */
  constructor(id, type, data) {
    this.id = id;
    this.type = type;
    this.data = data;
  }

  /** The piece of text that it is, or nothing. */
  get text() {
    return this.type === "message" ? /** @type {string} */ (this.data.delta_content) : "";
  }

  /** Whether it ends its stream. */
  get final() {
    return TERMINAL.has(this.type);
  }
}

/** Bytes in, messages out, whatever the split (HTML Living Standard, 9.2.6). Raises RangeError beyond `limit`. */
export class Decoder {
  #utf8 = new TextDecoder(); // drops one byte-order mark at the start, as the standard requires
  #limit;
  #tail = "";
  #afterCr = false;
  #type = "";
  /** @type {string[]} */
  #data = [];
  #held = 0;
  /** @type {string | undefined} */
  #id;

  constructor(limit = EVENT_LIMIT) {
    this.#limit = limit;
    this.lastId = "";
    /** @type {number | undefined} */
    this.retryMs = undefined;
  }

  /**
   * Take the next bytes and give the messages that they complete.
   * @param {Uint8Array} bytes
   * @returns {Message[]}
   */
  feed(bytes) {
    let text = this.#utf8.decode(bytes, { stream: true });
    if (!text) return [];
    if (this.#afterCr && text[0] === "\n") text = text.slice(1);
    this.#afterCr = text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#tail + lines[0];
    this.#tail = lines.pop() ?? "";
    const messages = lines.flatMap((line) => this.#line(line) ?? []);
    if (this.#tail.length + this.#held > this.#limit) throw new RangeError("an event is larger than the decoder's bound");
    return messages;
  }

  /** @param {string} line */
  #line(line) {
    if (!line) return this.#dispatch();
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (field === "event") this.#type = value;
    else if (field === "data") {
      this.#data.push(value);
      this.#held += line.length;
    } else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.retryMs = Math.min(Number(value), LONGEST_RETRY_MS);
    return undefined;
  }

  #dispatch() {
    this.lastId = this.#id ?? this.lastId;
    const [data, type] = [this.#data, this.#type];
    [this.#data, this.#type, this.#held] = [[], "", 0];
    return data.length ? { id: this.lastId, type: type || "message", data: data.join("\n") } : undefined;
  }
}

/** A gateway at a URL; in a browser `""` is the page's own. */
export class Gateway {
  #silence;
  #fetch;
  #headers;

  /**
   * @param {string | URL} [url]
   * @param {Options} [options]
   */
  constructor(url = "", { key = "", patience = PATIENCE_SECONDS, silence = SILENCE_SECONDS, headers = {}, fetch } = {}) {
    const { origin, pathname } = new URL(url || ".", globalThis.document?.baseURI);
    this.url = origin + pathname.replace(/\/*$/, "/");
    this.patience = patience;
    this.#silence = silence;
    this.#headers = key ? { authorization: `Bearer ${key}`, ...headers } : headers;
    this.#fetch = fetch ?? globalThis.fetch.bind(globalThis);
  }

  /**
   * A new stream, started when it is iterated or its result is asked for.
   * @param {Question} question
   */
  stream({ key = randomKey(), signal, onConnection, ...body }) {
    return new Stream(this.#ask, this.patience, { body, key, signal, onConnection });
  }

  /**
   * A stream that exists, from behind the event `after`, or from its beginning; or, by what a stream's `saved` was, from
   * where that one stood, with the text so far.
   * @param {string | Saved} id
   * @param {string} [after]
   * @param {Following} [options]
   */
  follow(id, after = "", { signal, onConnection } = {}) {
    const saved = typeof id === "string" ? { id, after } : { ...id.start, ...id };
    return new Stream(this.#ask, this.patience, { ...saved, signal, onConnection });
  }

  /**
   * Another try of a stream that has failed, started when it is iterated or its result is asked for. It goes on where
   * that one has failed, or from the stage `from`, or the id of the event with which one began; `params` are set anew,
   * and the input by the merge patch `input_patch` (RFC 7396). `webhook` stands instead of the failed stream's; null: none.
   * @param {string} id
   * @param {{ from?: string, params?: object, input_patch?: any, webhook?: Webhook | null, key?: string } & Following} [options]
   */
  retry(id, { key = randomKey(), signal, onConnection, ...body } = {}) {
    const path = `stream/${encodeURIComponent(id)}/retry`;
    return new Stream(this.#ask, this.patience, { body, key, signal, onConnection, path });
  }

  /**
   * Answer what a stream has asked: the stream that goes on, started when it is iterated or its result is asked for.
   * The same answers are the same stream. `webhook` stands instead of that of the stream that asks; null: none.
   * @param {string} id
   * @param {Record<string, unknown> | object[]} responses By the questions' ids, or as the gateway takes them.
   * @param {{ update?: Record<string, unknown>, goto?: unknown, webhook?: Webhook | null } & Following} [options]
   */
  resume(id, responses, { signal, onConnection, ...more } = {}) {
    const told = Array.isArray(responses)
      ? responses
      : Object.entries(responses).map(([name, response]) => ({ interrupt_id: name, response }));
    const path = `stream/${encodeURIComponent(id)}/resume`;
    return new Stream(this.#ask, this.patience, { body: { responses: told, ...more }, path, signal, onConnection });
  }

  /**
   * The events of several streams as they come, each with its stream's id, until all have ended. They share one
   * connection; each event comes once, through cuts. Raises Refused or Unreachable.
   * @param {string[]} ids
   * @param {Following} [options]
   * @returns {AsyncGenerator<[string, StreamEvent], void, void>}
   */
  async *followMany(ids, options = {}) {
    const left = new Set(ids);
    let position = "";
    const asks = () => {
      if (!left.size) return undefined;
      const body = JSON.stringify({ streams: [...left].map((id) => ({ id })) });
      return { method: "POST", headers: { "content-type": "application/json", ...behind(position) }, body };
    };
    for await (const message of this.#messages("streams/events", asks, options)) {
      if (!message) continue;
      const told = parsed(message.data);
      const event = new StreamEvent(told.id, message.type, told.data);
      position = message.id;
      if (event.final) left.delete(told.stream);
      yield [told.stream, event];
    }
  }

  /**
   * What becomes of the caller's streams, without end: `started`, `stage`, `waiting`, `ended`. An event's data is the
   * stream's row, as the list tells it; in `stage` it has `stage` too. First comes what ended in the last minute, and
   * what runs; or, behind the event `after`, what came since. Each event comes once, through cuts; after a `reset` the
   * feed begins anew. Raises Refused or Unreachable.
   * @param {{ after?: string, signal?: AbortSignal, onConnection?: (connected: boolean) => void }} [options]
   * @returns {AsyncGenerator<StreamEvent, void>}
   */
  async *feed({ after = "", ...options } = {}) {
    let position = after;
    /** @type {StreamEvent[]} */
    let beginning = []; // yielded only when it is complete, because the connection may be cut
    for await (const message of this.#messages("streams", () => ({ headers: behind(position) }), options)) {
      if (!message) {
        beginning = [];
        continue;
      }
      const { id, type, data } = message;
      beginning.push(new StreamEvent(id, type, parsed(data)));
      if ((id === "" || id === "0") && type !== "reset") continue;
      const events = beginning;
      [position, beginning] = [id, []];
      yield* events;
    }
  }

  /**
   * The messages of what `asks` asks for, over one connection after another; null where a connection begins. It ends
   * where `asks` asks for nothing more, and with a 204.
   * @param {string} path
   * @param {() => (RequestInit & { headers: Record<string, string> }) | undefined} asks
   * @param {Following} following
   * @returns {AsyncGenerator<{ id: string, type: string, data: string } | null, void, void>}
   */
  async *#messages(path, asks, { signal, onConnection }) {
    const pause = new Pause(this.patience);
    /** @type {number | undefined} */
    let retryMs;
    for (let init; (init = asks()); ) {
      let why = /** @type {Error} */ (new Lost("the connection was closed"));
      const asked = this.#ask(path, init, signal);
      try {
        const answer = await asked.answer();
        if (answer.status === 204) return;
        if (answer.status !== 200) throw await asked.refusal();
        onConnection?.(true);
        yield null;
        const decoder = new Decoder();
        for (let bytes; (bytes = await asked.next()); ) {
          const messages = decoder.feed(bytes);
          retryMs = decoder.retryMs;
          if (messages.length || bytes[0] === 0x3a) pause.reset();
          yield* messages;
        }
      } catch (error) {
        if (!(error instanceof Lost) && !(error instanceof Refused && AGAIN.has(error.status))) throw error;
        why = error;
      } finally {
        asked.close();
      }
      if (!asks()) return;
      onConnection?.(false);
      const least = why instanceof Refused ? why.retryAfter : retryMs && retryMs / 1000;
      await pause.wait(why, least, signal);
    }
  }

  /**
   * The status document. Raises Refused or Unreachable.
   * @param {string} id
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<Record<string, any>>}
   */
  status(id, { signal } = {}) {
    return json(this.#ask, new Pause(this.patience), "GET", `stream/${encodeURIComponent(id)}`, signal);
  }

  /**
   * End it now; answers the status document. Raises Refused or Unreachable.
   * @param {string} id
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<Record<string, any>>}
   */
  cancel(id, { signal } = {}) {
    return json(this.#ask, new Pause(this.patience), "DELETE", `stream/${encodeURIComponent(id)}`, signal);
  }

  /**
   * @param {string} path
   * @param {RequestInit & { headers: Record<string, string> }} init
   * @param {AbortSignal} [signal]
   */
  #ask = (path, init, signal) => {
    const whole = { cache: /** @type {const} */ ("no-store"), ...init, headers: { ...this.#headers, ...init.headers } };
    return new Exchange(this.#fetch, this.url + path, whole, this.#silence, signal);
  };
}

/** One stream: `for await (const event of stream)`, or `await stream.result()`. Iterated again, it goes on. */
export class Stream {
  #ask;
  #pause;
  #body;
  #start;
  #key;
  #signal;
  #onConnection;
  /** @type {Exchange | undefined} The connection that is open, or being opened. */
  #exchange;
  #heard = 0; // time of the last bytes, in ms of Date: this clock runs on while the machine sleeps
  /** @type {number | undefined} */
  #retryMs;
  /** @type {Record<string, any> | undefined} The terminal event's data. */
  #end;
  /** @type {string[]} The id of the event with which each stage began, by the stage's index. */
  #begun;

  /**
   * @internal
   * @param {(path: string, init: RequestInit & { headers: Record<string, string> }, signal?: AbortSignal) => any} ask
   * @param {number} patience
   * @param {{ body?: object, path?: string, key?: string } & Partial<Saved> & Following} what
   */
  constructor(ask, patience, what) {
    const { body, path = "stream", key = "", id = "", after = "", stages = [], begun = [] } = what;
    this.#ask = ask;
    this.#pause = new Pause(patience);
    this.#body = body;
    this.#start = path;
    this.#key = key;
    this.#signal = what.signal;
    this.#onConnection = what.onConnection;
    this.#begun = [...begun];
    /** The stream's id, once it is known. */
    this.id = id;
    /** The cursor behind which this stream goes on. */
    this.lastEventId = after;
    /** @type {Stage[]} As far as they have come. */
    this.stages = stages.map((one) => ({ ...one, events: one.events.map(({ id, type, data }) => new StreamEvent(id, type, data)) }));
    /** @type {"" | "done" | "failed" | "cancelled" | "unknown"} How it ended; unknown: before it was followed. */
    this.ended = "";
  }

  /** Whether a graph has stopped to ask; known once the stream was followed to its end. */
  get interrupted() {
    return this.#end?.finish_reason === "interrupted";
  }

  /** @returns {Result["interrupts"]} What it asks. */
  get interrupts() {
    return this.#end?.interrupts ?? [];
  }

  /** The last stage's text, as far as it has come; of a graph, that of its last node that has said something. */
  get text() {
    return this.stages.findLast((stage) => stage.text || !stage.parent)?.text ?? "";
  }

  /** @returns {Saved} Where it stands now: `Gateway.follow` goes on from there, in another page or after a reload too. */
  get saved() {
    const stages = this.stages.map((one) => ({ ...one, events: one.events.map(({ id, type, data }) => ({ id, type, data })) }));
    const start = { path: this.#start, key: this.#key, body: this.#body };
    return { id: this.id, after: this.lastEventId, stages, begun: [...this.#begun], ...(this.id ? {} : { start }) };
  }

  /**
   * Connect anew at once, as the network or the page is back. It ends the pause between two tries, and gives up a
   * connection from which nothing came for `silence` seconds; the patience begins anew. A pause that the gateway has asked
   * for goes on. Before and behind an iteration it does nothing.
   * @param {number} [silence] Seconds; 0 gives up any connection.
   */
  reconnect(silence = 0) {
    if (Date.now() - this.#heard < silence * 1000) return;
    this.#exchange?.drop();
    this.#pause.skip();
  }

  /** Every event once. Raises Refused, Unreachable, or the signal's reason. */
  async *[Symbol.asyncIterator]() {
    this.#pause.reset();
    while (!this.ended) {
      /** @type {Error} */
      let why = new Lost("the connection was closed");
      try {
        yield* this.#connection();
      } catch (error) {
        if (!(error instanceof Lost) && !this.#again(error)) throw error;
        why = /** @type {Error} */ (error);
      }
      if (this.ended) return;
      this.#onConnection?.(false);
      await this.#pause.wait(why, this.#waitSeconds(why), this.#signal, why instanceof Refused && why.retryAfter !== undefined);
    }
  }

  /**
   * Follow it to its end. Raises StreamFailed, StreamCancelled, Refused or Unreachable.
   * @returns {Promise<Result>}
   */
  async result() {
    for await (const _ of this);
    const { text, stages, status, error, usage, end } = await this.#told();
    if (status === "failed") throw new StreamFailed(error, text);
    if (status === "cancelled") throw new StreamCancelled("the stream was cancelled");
    return {
      text,
      stages: stages.map((/** @type {Stage} */ one) => ({ name: one.name, run: one.run, state: one.state, text: one.text })),
      usage: usage ?? {},
      finishReason: end.finish_reason ?? "",
      interrupts: end.interrupts ?? [],
      interrupted: end.finish_reason === "interrupted",
    };
  }

  /**
   * Return the data of the events; for a stream that had ended before it was followed, the status document.
   * @returns {Promise<any>}
   */
  async #told() {
    const end = this.#end ?? {};
    if (this.ended !== "unknown") {
      return { text: this.text, stages: this.stages, status: this.ended, error: end, usage: end.usage, end };
    }
    const told = await json(this.#ask, this.#pause, "GET", this.#path, this.#signal);
    const waits = told.status === "waiting";
    return { ...told, end: waits ? { finish_reason: "interrupted", interrupts: told.interrupts } : end };
  }

  /**
   * End it at the gateway; answers the status document. One whose id is not known yet, as the answer was lost, is
   * found by its key. Raises Refused or Unreachable.
   * @returns {Promise<Record<string, any>>}
   */
  async cancel() {
    if (!this.id) {
      const headers = this.#starting;
      this.id = (await json(this.#ask, this.#pause, "POST", this.#start, undefined, headers, JSON.stringify(this.#body))).id;
    }
    return json(this.#ask, this.#pause, "DELETE", this.#path);
  }

  /** @returns {Record<string, string>} */
  get #starting() {
    /** @type {Record<string, string>} */
    const key = this.#key ? { "idempotency-key": this.#key } : {}; // an answer needs no key: it is idempotent
    return { "content-type": "application/json", ...key };
  }

  get #path() {
    return `stream/${encodeURIComponent(this.id)}`;
  }

  /** Yield the events of one connection. Raises Refused or Lost. */
  async *#connection() {
    /** @type {Record<string, string>} */
    const headers = { accept: "text/event-stream" };
    if (this.lastEventId) headers["last-event-id"] = this.lastEventId;
    const starting = { ...this.#starting, ...headers };
    const asked = this.id
      ? this.#ask(this.#path, { headers }, this.#signal)
      : this.#ask(this.#start, { method: "POST", headers: starting, body: JSON.stringify(this.#body) }, this.#signal);
    this.#exchange = asked;
    try {
      const answer = await asked.answer();
      if (answer.status === 204) {
        this.ended = "unknown";
        return;
      }
      if (answer.status !== 200) throw await asked.refusal();
      this.id ||= answer.headers.get("x-stream-id") ?? "";
      if (!this.id) throw new GatewayError("what answers there is no gateway: it names no stream");
      this.#onConnection?.(true);
      const decoder = new Decoder();
      for (let bytes; !this.ended && (bytes = await asked.next()); ) {
        const messages = decoder.feed(bytes);
        this.#heard = Date.now();
        this.#retryMs = decoder.retryMs;
        if (messages.length || bytes[0] === 0x3a) this.#pause.reset(); // not for `retry:` alone
        for (const message of messages) yield this.#take(message);
      }
    } finally {
      asked.close();
      if (this.#exchange === asked) this.#exchange = undefined;
    }
  }

  /** @param {Message} message */
  #take({ id, type, data }) {
    const event = new StreamEvent(id, type, parsed(data));
    const told = event.data;
    this.lastEventId = id;
    if (type === "message") this.#stage(told, told.stage, id).text += told.delta_content;
    else if (type === "refusal") this.#stage(told, told.stage, id).text += told.delta;
    else if (type === "tool" || type === "custom") this.#stage(told, told.stage, id).events.push(event);
    else if (type === "stage" && told.state === "started") this.#begin(told.name, told.run, id, told.parent);
    else if (type === "stage") this.#finish(told);
    else if (type === "reset" && told.discard_after) this.#void(told.discard_after);
    else if (type === "reset") this.#forget(); // log_lost: the client forgets all that it received
    else if (event.final) [this.ended, this.#end] = [/** @type {any} */ (type), told];
    return event;
  }

  /**
   * Return this run of a stage; without a number, or for an unknown run, the latest run with this name.
   * @param {{ run?: number }} told
   * @param {string} name
   * @param {string} id
   */
  #stage({ run }, name, id) {
    const named = this.stages.filter((stage) => stage.name === name);
    return named.findLast((stage) => stage.run === run) ?? named.at(-1) ?? this.#begin(name, run ?? 1, id);
  }

  /**
   * Finish a run. A node may have its chain's name. A run that began before this reader is not known.
   * @param {{ name: string, run: number, parent?: string }} told
   */
  #finish({ name, run, parent = "" }) {
    const stage = this.stages.findLast((one) => one.name === name && one.run === run && one.parent === parent);
    if (stage) stage.state = "finished";
  }

  /**
   * @param {string} name
   * @param {number} run
   * @param {string} id
   * @returns {Stage}
   */
  #begin(name, run, id, parent = "") {
    this.#begun.push(id);
    this.stages.push({ name, run, parent, state: "started", text: "", events: [] });
    return this.stages[this.stages.length - 1];
  }

  /**
   * Void the stage that began at this event: drop its text and events, and the nodes of its graph.
   * @param {string} began
   */
  #void(began) {
    const number = this.#begun.indexOf(began);
    if (number < 0) return;
    const stage = this.stages[number];
    [stage.text, stage.events] = ["", []];
    const stands = this.stages.map((other, at) => at <= number || other.parent !== stage.name);
    this.stages = this.stages.filter((_, at) => stands[at]);
    this.#begun = this.#begun.filter((_, at) => stands[at]);
  }

  #forget() {
    [this.lastEventId, this.stages, this.#begun] = ["", [], []];
  }

  /**
   * Return whether to retry. A start that was refused by a quota is not retried: the caller gets the error.
   * @param {unknown} error
   */
  #again(error) {
    return error instanceof Refused && AGAIN.has(error.status) && (this.id !== "" || error.status !== 429);
  }

  /** @param {Error} why */
  #waitSeconds(why) {
    if (why instanceof Refused) return why.retryAfter;
    return this.#retryMs === undefined ? undefined : this.#retryMs / 1000;
  }
}

/** One request and its answer, until its end, a too long silence, or the signal. A failure raises Lost. */
class Exchange {
  #controller = new AbortController();
  #silence;
  #signal;
  #asked;
  /** @type {ReadableStreamDefaultReader<Uint8Array> | undefined} */
  #reader;
  #abort = () => this.#controller.abort(this.#signal?.reason);

  /**
   * @param {typeof globalThis.fetch} fetch
   * @param {string} url
   * @param {RequestInit} init
   * @param {number} silence
   * @param {AbortSignal} [signal]
   */
  constructor(fetch, url, init, silence, signal) {
    signal?.throwIfAborted();
    signal?.addEventListener("abort", this.#abort);
    this.#signal = signal;
    this.#silence = silence;
    this.#asked = () => fetch(url, { ...init, signal: this.#controller.signal });
  }

  /** @returns {Promise<Response>} Its status and headers. */
  async answer() {
    const answer = await this.#within(this.#asked);
    this.#reader = answer.body?.getReader();
    this.#asked = async () => answer;
    return answer;
  }

  /** @returns {Promise<Uint8Array | undefined>} The next bytes; none at the end. */
  async next() {
    return (await this.#within(async () => this.#reader?.read()))?.value;
  }

  async json() {
    const decoder = new TextDecoder();
    let text = "";
    for (let bytes; (bytes = await this.next()); ) text += decoder.decode(bytes, { stream: true });
    return parsed(text + decoder.decode());
  }

  /** Return the error for a refusing answer. */
  async refusal() {
    const { status, headers } = await this.#asked();
    const given = headers.get("retry-after") ?? "";
    const retryAfter = /^[0-9]+$/.test(given) ? Number(given) : undefined;
    const problem = await this.json().catch((error) => {
      if (!(error instanceof GatewayError)) throw error;
    });
    return new Refused(status, problem !== null && typeof problem === "object" ? problem : {}, retryAfter);
  }

  close() {
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#controller.abort();
  }

  /** Give up the connection, as if it were lost. */
  drop() {
    this.#controller.abort(new Lost("given up"));
  }

  /**
   * @template T
   * @param {() => Promise<T>} work
   */
  async #within(work) {
    const timer = setTimeout(() => this.#controller.abort(new Lost("silence")), this.#silence * 1000);
    try {
      return await work();
    } catch (cause) {
      this.#signal?.throwIfAborted();
      throw new Lost("the connection was lost", { cause });
    } finally {
      clearTimeout(timer);
    }
  }
}

/** The pauses between retries: at least the gateway's value, longer each time, with jitter, up to a limit. */
class Pause {
  #patience;
  #tries = 0;
  #since = performance.now();
  #skip = false;
  /** @type {Set<() => void>} Functions that end the pauses which may be cut short. */
  #waiting = new Set();

  /** @param {number} patience Seconds. */
  constructor(patience) {
    this.#patience = patience;
  }

  /** Data has arrived: begin again with short pauses. */
  reset() {
    [this.#tries, this.#since] = [0, performance.now()];
  }

  /** Retry now: end the present pause, or skip the next pause if there is none. */
  skip() {
    this.reset();
    this.#skip = !this.#waiting.size;
    for (const over of this.#waiting) over();
  }

  /**
   * Wait for the next retry. Raises Unreachable when the patience is over.
   * @param {Error} cause
   * @param {number} [least] Seconds.
   * @param {AbortSignal} [signal]
   * @param {boolean} [firm] Whether `skip` leaves it as it is.
   */
  async wait(cause, least, signal, firm = false) {
    const skipped = this.#skip && !firm;
    this.#skip = false;
    if (skipped) return;
    const [first, longest] = BACKOFF_SECONDS;
    let seconds = Math.min(first * 2 ** this.#tries, longest) * (0.5 + Math.random() / 2);
    seconds = this.#tries ? Math.max(seconds, least ?? 0) : least || seconds;
    this.#tries++;
    if (performance.now() + seconds * 1000 > this.#since + this.#patience * 1000) {
      throw new Unreachable("the gateway cannot be reached", { cause });
    }
    await new Promise((resolve, reject) => {
      const over = () => {
        clearTimeout(timer);
        this.#waiting.delete(over);
        signal?.removeEventListener("abort", over);
        if (signal?.aborted) reject(signal.reason);
        else resolve(undefined);
      };
      const timer = setTimeout(over, seconds * 1000);
      if (!firm) this.#waiting.add(over);
      signal?.addEventListener("abort", over);
      if (signal?.aborted) over();
    });
  }
}

/**
 * Return the JSON of an answer, and retry the request if needed. Raises Refused or Unreachable.
 * @param {(path: string, init: RequestInit & { headers: Record<string, string> }, signal?: AbortSignal) => Exchange} ask
 * @param {Pause} pause
 * @param {string} method
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @param {Record<string, string>} [headers]
 * @param {string} [body]
 */
async function json(ask, pause, method, path, signal, headers = {}, body = undefined) {
  pause.reset();
  for (;;) {
    const asked = ask(path, { method, headers: { accept: "application/json", ...headers }, body }, signal);
    try {
      const answer = await asked.answer();
      if (answer.ok) return await asked.json();
      throw await asked.refusal();
    } catch (error) {
      if (!(error instanceof Lost) && !(error instanceof Refused && AGAIN.has(error.status))) throw error;
      await pause.wait(error, error instanceof Refused ? error.retryAfter : undefined, signal);
    } finally {
      asked.close();
    }
  }
}

/**
 * @param {string} position
 * @returns {Record<string, string>}
 */
function behind(position) {
  return { accept: "text/event-stream", ...(position && { "last-event-id": position }) };
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new GatewayError("what answers there is no gateway: that is not JSON");
  }
}

function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
