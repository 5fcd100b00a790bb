/** What a component follows, without React: the state and the actions of react.js. */
import { Gateway, Refused, StreamFailed, Unreachable } from "./client.js";

/** @typedef {import("./client.js").Saved} Saved */
/** @typedef {import("./client.js").Stage} Stage */
/** @typedef {import("./client.js").Stream} Stream */
/** @typedef {import("./client.js").StreamEvent} StreamEvent */
/** @typedef {import("./react.js").HookOptions} HookOptions */
/** @typedef {import("./react.js").State} State */
/** @typedef {import("./react.js").Actions} Actions */

const DRAW_MS = 16; // between two renders for events
const SILENCE_SECONDS = 20; // longer than a heartbeat: a connection that is silent as long is given up when the tab is seen again
const VERSION = 1; // of what is stored
const GONE = new Set([404, 410]);
const OVER = new Set(["interrupted", "done", "failed", "cancelled"]);

/** @type {Readonly<State>} */
export const IDLE = Object.freeze({ id: "", status: "idle", text: "", stages: [], events: [], interrupts: [], error: undefined });

/** What one component follows. It outlives the component's effects, which React may end and begin again. */
export class Follower {
  #gateway;
  #options;
  #place;
  #shown = ""; // the newest `id` of the options that was followed
  #attached = false;
  /** @type {{ url: string, key: string, gateway: Gateway } | undefined} Made of a URL. */
  #made;
  /** @type {Stream | undefined} */
  #stream;
  #over = new AbortController();
  #chosen = 0; // counts the streams that were chosen: one that is followed again is the same
  #gaveUp = false; // the client's patience is at its end
  /** @type {{ resolve: (id: string) => void, reject: (error: unknown) => void } | undefined} */
  #promised;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {Set<() => void>} */
  #listeners = new Set();
  #state = IDLE;
  /** @type {Pick<State, "status" | "error" | "interrupts">} */
  #now = IDLE;

  /**
   * @param {Gateway | string | URL} gateway
   * @param {HookOptions} options
   * @param {string} place Gateway and storage key: in another place other streams are followed.
   */
  constructor(gateway, options, place) {
    this.#gateway = gateway;
    this.#options = options;
    this.#place = place;
  }

  state = () => this.#state;

  /** @param {() => void} listener */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  };

  /**
   * Take what the newest render was given.
   * @param {Gateway | string | URL} gateway
   * @param {HookOptions} options
   */
  configure(gateway, options) {
    this.#gateway = gateway;
    this.#options = options;
  }

  /**
   * The component is there: follow what it has followed before, what was stored, or what the options name.
   * @param {string} place
   */
  attach(place) {
    if (place !== this.#place) {
      this.#leave();
      [this.#place, this.#shown] = [place, ""];
    }
    this.#attached = true;
    const { id = "" } = this.#options;
    const kept = this.#stream ? undefined : stored(this.#options, this.#reached.url);
    if (kept && (!id || id === kept.id)) {
      this.#shown = id;
      this.#choose(kept);
    } else if (this.#stream && !OVER.has(this.#now.status)) {
      this.#follow(this.#stream.saved);
    }
    this.show(id);
    for (const [target, type, listener] of this.#wakers()) target.addEventListener(type, listener);
    return () => this.#detach();
  }

  /**
   * Follow the stream that the options name, where that is news.
   * @param {string} id
   */
  show(id) {
    if (!id || id === this.#shown) return;
    this.#shown = id;
    if (id !== this.#stream?.id) this.#choose({ id, after: "", stages: [], begun: [] });
  }

  /** @type {Actions["start"]} */
  start = (question) => this.#promise(() => this.#reached.stream(question));

  /** @type {Actions["resume"]} */
  resume = (responses, options) => this.#promise(() => this.#reached.resume(this.#known, responses, options));

  /** @type {Actions["retry"]} */
  retry = (options) => this.#promise(() => this.#reached.retry(this.#known, options));

  /** @type {Actions["cancel"]} */
  cancel = async () => {
    const [stream, chosen] = [this.#stream, this.#chosen];
    if (!stream) return;
    const { status } = await stream.cancel();
    if (chosen !== this.#chosen) return;
    if (status === "cancelled" && stream.ended) this.#set("cancelled"); // it had ended to ask: no event tells it
    else this.#wake(SILENCE_SECONDS);
  };

  /** @type {Actions["reconnect"]} */
  reconnect = () => this.#wake(0);

  /** The component's effects are over, for now or for ever. */
  #detach() {
    this.#keep();
    this.#attached = false;
    this.#over.abort();
    for (const [target, type, listener] of this.#wakers()) target.removeEventListener(type, listener);
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** @returns {[EventTarget, string, () => void][]} */
  #wakers() {
    return [
      [window, "online", this.reconnect],
      [window, "offline", this.reconnect], // what was open is lost; unless the gateway is on this machine
      [window, "pagehide", this.#keep],
      [document, "visibilitychange", this.#seen],
    ];
  }

  #seen = () => {
    if (document.visibilityState === "hidden") this.#keep();
    else this.#wake(SILENCE_SECONDS);
  };

  /** @param {number} silence Seconds without a byte, after which an open connection is given up. */
  #wake(silence) {
    const stream = this.#stream;
    if (!stream || OVER.has(this.#now.status) || !this.#attached) return;
    if (this.#gaveUp) void this.#run(stream, this.#over.signal);
    else stream.reconnect(this.#now.status === "streaming" ? silence : 0);
  }

  get #reached() {
    if (isGateway(this.#gateway)) return this.#gateway;
    const [url, { key = "" }] = [String(this.#gateway), this.#options];
    if (this.#made?.url !== url || this.#made.key !== key) this.#made = { url, key, gateway: new Gateway(url, { key }) };
    return this.#made.gateway;
  }

  get #known() {
    if (!this.#stream?.id) throw new Error("there is no stream yet that could go on");
    return this.#stream.id;
  }

  /**
   * Follow the stream that is made.
   * @param {() => Stream} make
   * @returns {Promise<string>} Its id, once the gateway has told it.
   */
  #promise(make) {
    /** @type {Promise<string>} */
    const promise = new Promise((resolve, reject) => {
      this.#choose(make().saved);
      this.#promised = { resolve, reject };
    });
    promise.catch(() => {}); // whoever does not await it has the state's `error`
    return promise;
  }

  /**
   * Follow another stream than before.
   * @param {Saved} saved
   */
  #choose(saved) {
    this.#leave();
    this.#follow(saved);
    this.#keep();
  }

  /** Follow nothing. */
  #leave() {
    this.#over.abort();
    this.#promised?.reject(new DOMException("another stream is followed", "AbortError"));
    this.#promised = this.#stream = undefined;
    this.#chosen++;
    this.#set("idle");
  }

  /** @param {Saved} saved */
  #follow(saved) {
    this.#over.abort();
    const { signal } = (this.#over = new AbortController());
    const onConnection = (/** @type {boolean} */ open) => {
      if (signal.aborted) return;
      if (open) this.#told();
      this.#set(open ? "streaming" : "reconnecting");
    };
    this.#stream = this.#reached.follow(saved, "", { signal, onConnection });
    this.#set(saved.after ? "reconnecting" : "starting");
    if (this.#attached) void this.#run(this.#stream, signal);
  }

  /**
   * Follow it to its end. An event that the stream has taken is told even where the following has ended meanwhile: the
   * next one goes on behind it.
   * @param {Stream} stream
   * @param {AbortSignal} signal
   */
  async #run(stream, signal) {
    const chosen = this.#chosen;
    this.#gaveUp = false;
    try {
      for await (const event of stream) {
        if (chosen !== this.#chosen) return;
        this.#take(event);
        if (signal.aborted) return;
      }
      if (stream.ended === "unknown") await this.#look(stream, signal);
      if (!signal.aborted) this.#keep();
    } catch (error) {
      if (!signal.aborted) this.#fail(/** @type {Error} */ (error));
    }
  }

  /** @param {StreamEvent} event */
  #take(event) {
    const { type, data } = event;
    if (type === "failed") this.#set("failed", new StreamFailed(data, this.#stream?.text ?? ""));
    else if (type === "cancelled") this.#set("cancelled");
    else if (type === "done") this.#set(this.#stream?.interrupted ? "interrupted" : "done", undefined, this.#stream?.interrupts);
    else this.#timer ??= setTimeout(this.#draw, DRAW_MS);
    try {
      this.#options.onEvent?.(event);
    } catch (error) {
      queueMicrotask(() => { throw error; }); // no failure of the stream: it is told as any uncaught error
    }
  }

  /**
   * How a stream stands whose end had been read before.
   * @param {Stream} stream
   * @param {AbortSignal} signal
   */
  async #look(stream, signal) {
    const { status, interrupts, error } = await this.#reached.status(stream.id, { signal });
    if (signal.aborted) return;
    if (status === "waiting") this.#set("interrupted", undefined, interrupts);
    else this.#set(status, status === "failed" ? new StreamFailed(error, stream.text) : undefined);
  }

  /** @param {Error} error */
  #fail(error) {
    this.#gaveUp = error instanceof Unreachable;
    this.#set(this.#gaveUp ? "reconnecting" : "failed", error);
    if (this.#gaveUp) return;
    if (error instanceof Refused && (GONE.has(error.status) || !this.#stream?.id)) forget(this.#options);
    this.#promised?.reject(error);
    this.#promised = undefined;
  }

  /** The gateway has answered: the stream has an id. */
  #told() {
    this.#promised?.resolve(this.#stream?.id ?? "");
    this.#promised = undefined;
    this.#keep();
  }

  /**
   * @param {State["status"]} status
   * @param {Error} [error]
   * @param {State["interrupts"]} [interrupts]
   */
  #set(status, error = undefined, interrupts = []) {
    this.#now = { status, error, interrupts };
    this.#draw();
  }

  #draw = () => {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const stream = this.#stream;
    const before = this.#state.stages;
    const stages = (stream?.stages ?? []).map((one, at) => (same(before[at], one) ? before[at] : { ...one, events: [...one.events] }));
    const events = stages.flatMap((one) => one.events);
    this.#state = stream ? { id: stream.id, text: stream.text, stages, events, ...this.#now } : IDLE;
    for (const listener of this.#listeners) listener();
  };

  #keep = () => {
    if (this.#stream && !(this.#now.error instanceof Refused)) keep(this.#options, this.#reached.url, this.#stream.saved);
  };
}

/**
 * @param {Gateway | string | URL} given
 * @returns {given is Gateway}
 */
export const isGateway = (given) => typeof given === "object" && "follow" in given;

/**
 * Whether nothing has changed.
 * @param {Stage | undefined} before
 * @param {Stage} now
 */
const same = (before, now) => before !== undefined && before.name === now.name && before.run === now.run && before.parent === now.parent
  && before.state === now.state && before.text === now.text && before.events.length === now.events.length
  && before.events.every((event, at) => event === now.events[at]);

/**
 * Use the storage. One that is full, or that the browser does not allow, keeps nothing: a reload begins anew.
 * @template T
 * @param {HookOptions} options
 * @param {(storage: NonNullable<HookOptions["storage"]>, name: string) => T} work
 * @returns {T | undefined}
 */
function using({ storageKey, storage }, work) {
  if (!storageKey) return undefined;
  try {
    return work(storage ?? globalThis.sessionStorage, storageKey);
  } catch (error) {
    if (error instanceof DOMException) return undefined;
    throw error;
  }
}

/** @param {HookOptions} options */
const forget = (options) => using(options, (storage, name) => storage.removeItem(name));

/**
 * Store how far a stream was followed; where there is no room for what it has said, where its beginning is.
 * @param {HookOptions} options
 * @param {string} url Of its gateway.
 * @param {Saved} saved
 */
function keep(options, url, saved) {
  const put = (/** @type {Saved} */ what) => using(options, (storage, name) => {
    storage.removeItem(name); // what is older would be followed instead
    storage.setItem(name, JSON.stringify({ version: VERSION, url, saved: what }));
    return true;
  });
  if (!put(saved)) put({ ...saved, after: "", stages: [], begun: [] });
}

/**
 * What was stored, of the same gateway.
 * @param {HookOptions} options
 * @param {string} url
 * @returns {Saved | undefined}
 */
function stored(options, url) {
  const text = using(options, (storage, name) => storage.getItem(name));
  try {
    const kept = JSON.parse(text ?? "null");
    return kept?.version === VERSION && kept.url === url ? kept.saved : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined; // something else is stored under that name
    throw error;
  }
}
