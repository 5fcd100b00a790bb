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
export type Message = {
    id: string;
    type: string;
    data: string;
};
export type Stage = {
    name: string;
    /**
     * Counts from 1.
     */
    run: number;
    /**
     * Of a graph's node, the chain's stage that it belongs to; else empty.
     */
    parent: string;
    state: "started" | "finished";
    /**
     * The text that stands.
     */
    text: string;
    /**
     * Its `tool` and `custom` events that stand.
     */
    events: StreamEvent[];
};
export type Result = {
    /**
     * The last stage's text.
     */
    text: string;
    /**
     * The runs of its stages, in order.
     */
    stages: {
        name: string;
        run: number;
        state: string;
        text: string;
    }[];
    usage: Record<string, number>;
    finishReason: string;
    /**
     * What a graph has stopped to ask.
     */
    interrupts: {
        id: string;
        value: unknown;
        response_schema?: object;
    }[];
    /**
     * Whether it has: `resume` answers it.
     */
    interrupted: boolean;
};
export type Webhook = {
    url: string;
    /**
     * All by default.
     */
    events?: ("done" | "failed" | "cancelled" | "interrupted")[];
    /**
     * Only if no reader has had the end `within_seconds` after it.
     */
    when?: "unseen";
    within_seconds?: number;
};
export type Question = {
    user?: string;
    messages?: {
        role: string;
        content: unknown;
    }[];
    input?: unknown;
    chain?: string;
    params?: Record<string, unknown>;
    metadata?: Record<string, unknown>;
    /**
     * The conversation that it goes on with.
     */
    thread?: string;
    /**
     * What happens where another stream of the thread runs.
     */
    multitask_strategy?: "reject" | "enqueue" | "interrupt" | "rollback";
    /**
     * Whom to tell of the stream's end.
     */
    webhook?: Webhook;
    /**
     * The Idempotency-Key, a random one by default: the same key is the same stream.
     */
    key?: string;
    /**
     * Ends the following, and not the stream.
     */
    signal?: AbortSignal;
    /**
     * Told that a connection carries the stream, and that one is lost.
     */
    onConnection?: (open: boolean) => void;
};
export type Following = {
    /**
     * Ends the following, and not the stream.
     */
    signal?: AbortSignal;
    /**
     * Told that a connection carries the stream, and that one is lost.
     */
    onConnection?: (open: boolean) => void;
};
export type Saved = {
    /**
     * The stream's id; empty where the gateway has not told it yet.
     */
    id: string;
    /**
     * The id of the last event.
     */
    after: string;
    /**
     * What the events so far have come to.
     */
    stages: {
        name: string;
        run: number;
        parent: string;
        state: "started" | "finished";
        text: string;
        events: {
            id: string;
            type: string;
            data: any;
        }[];
    }[];
    /**
     * The id of the event with which each stage began.
     */
    begun: string[];
    /**
     * Without an id: the request that starts it.
     */
    start?: {
        path: string;
        key: string;
        body?: object;
    };
};
export type Options = {
    /**
     * An API key or a JWT.
     */
    key?: string;
    /**
     * Seconds without a sign of the gateway, after which it is Unreachable.
     */
    patience?: number;
    /**
     * Seconds without a byte, after which a connection is given up.
     */
    silence?: number;
    /**
     * For every request.
     */
    headers?: Record<string, string>;
    /**
     * Instead of the global one.
     */
    fetch?: typeof globalThis.fetch;
};
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
export declare class GatewayError extends Error {
    get name(): string;
}
/** The gateway has refused a request. */
export declare class Refused extends GatewayError {
    status: number;
    /** @type {string} The problem's stable code. */
    code: string;
    problem: Record<string, any>;
    retryAfter: number | undefined;
    get name(): string;
    /**
     * @param {number} status HTTP's.
     * @param {Record<string, any>} problem RFC 9457's document.
     * @param {number | undefined} retryAfter Seconds, where the answer names any.
     */
    constructor(status: number, problem: Record<string, any>, retryAfter: number | undefined);
}
/** Nothing was heard of the gateway for as long as the client's patience lasts; `cause` is the last failure. */
export declare class Unreachable extends GatewayError {
    get name(): string;
}
/** The stream ended without a result. */
export declare class StreamFailed extends GatewayError {
    code: string;
    retryable: boolean;
    text: string;
    get name(): string;
    /**
     * @param {{ code: string, message: string, retryable: boolean }} error
     * @param {string} text What it had said.
     */
    constructor(error: {
        code: string;
        message: string;
        retryable: boolean;
    }, text: string);
}
/** Somebody has cancelled the stream. */
export declare class StreamCancelled extends GatewayError {
    get name(): string;
}
/** One event: its id, its type (`message` for text) and its data. Types may be added to the protocol. */
export declare class StreamEvent {
    id: string;
    type: string;
    data: any;
    /**
     * @param {string} id
     * @param {string} type
     * @param {any} data
     */
    constructor(id: string, type: string, data: any);
    /** The piece of text that it is, or nothing. */
    get text(): string;
    /** Whether it ends its stream. */
    get final(): boolean;
}
/** Bytes in, messages out, whatever the split (HTML Living Standard, 9.2.6). Raises RangeError beyond `limit`. */
export declare class Decoder {
    #private;
    lastId: string;
    /** @type {number | undefined} */
    retryMs: number | undefined;
    constructor(limit?: number);
    /**
     * Take the next bytes and give the messages that they complete.
     * @param {Uint8Array} bytes
     * @returns {Message[]}
     */
    feed(bytes: Uint8Array): Message[];
}
/** A gateway at a URL; in a browser `""` is the page's own. */
export declare class Gateway {
    #private;
    url: string;
    patience: number;
    /**
     * @param {string | URL} [url]
     * @param {Options} [options]
     */
    constructor(url?: string | URL, { key, patience, silence, headers, fetch }?: Options);
    /**
     * A new stream, started when it is iterated or its result is asked for.
     * @param {Question} question
     */
    stream({ key, signal, onConnection, ...body }: Question): Stream;
    /**
     * A stream that exists, from behind the event `after`, or from its beginning; or, by what a stream's `saved` was, from
     * where that one stood, with the text so far.
     * @param {string | Saved} id
     * @param {string} [after]
     * @param {Following} [options]
     */
    follow(id: string | Saved, after?: string, { signal, onConnection }?: Following): Stream;
    /**
     * Another try of a stream that has failed, started when it is iterated or its result is asked for. It goes on where
     * that one has failed, or from the stage `from`, or the id of the event with which one began; `params` are set anew,
     * and the input by the merge patch `input_patch` (RFC 7396). `webhook` stands instead of the failed stream's; null: none.
     * @param {string} id
     * @param {{ from?: string, params?: object, input_patch?: any, webhook?: Webhook | null, key?: string } & Following} [options]
     */
    retry(id: string, { key, signal, onConnection, ...body }?: {
        from?: string;
        params?: object;
        input_patch?: any;
        webhook?: Webhook | null;
        key?: string;
    } & Following): Stream;
    /**
     * Answer what a stream has asked: the stream that goes on, started when it is iterated or its result is asked for.
     * The same answers are the same stream. `webhook` stands instead of that of the stream that asks; null: none.
     * @param {string} id
     * @param {Record<string, unknown> | object[]} responses By the questions' ids, or as the gateway takes them.
     * @param {{ update?: Record<string, unknown>, goto?: unknown, webhook?: Webhook | null } & Following} [options]
     */
    resume(id: string, responses: Record<string, unknown> | object[], { signal, onConnection, ...more }?: {
        update?: Record<string, unknown>;
        goto?: unknown;
        webhook?: Webhook | null;
    } & Following): Stream;
    /**
     * The events of several streams as they come, each with its stream's id, until all have ended. They share one
     * connection; each event comes once, through cuts. Raises Refused or Unreachable.
     * @param {string[]} ids
     * @param {Following} [options]
     * @returns {AsyncGenerator<[string, StreamEvent], void, void>}
     */
    followMany(ids: string[], options?: Following): AsyncGenerator<[string, StreamEvent], void, void>;
    /**
     * What becomes of the caller's streams, without end: `started`, `stage`, `waiting`, `ended`. An event's data is the
     * stream's row, as the list tells it; in `stage` it has `stage` too. First comes what ended in the last minute, and
     * what runs; or, behind the event `after`, what came since. Each event comes once, through cuts; after a `reset` the
     * feed begins anew. Raises Refused or Unreachable.
     * @param {{ after?: string, signal?: AbortSignal, onConnection?: (connected: boolean) => void }} [options]
     * @returns {AsyncGenerator<StreamEvent, void>}
     */
    feed({ after, ...options }?: {
        after?: string;
        signal?: AbortSignal;
        onConnection?: (connected: boolean) => void;
    }): AsyncGenerator<StreamEvent, void>;
    /**
     * The status document. Raises Refused or Unreachable.
     * @param {string} id
     * @param {{ signal?: AbortSignal }} [options]
     * @returns {Promise<Record<string, any>>}
     */
    status(id: string, { signal }?: {
        signal?: AbortSignal;
    }): Promise<Record<string, any>>;
    /**
     * End it now; answers the status document. Raises Refused or Unreachable.
     * @param {string} id
     * @param {{ signal?: AbortSignal }} [options]
     * @returns {Promise<Record<string, any>>}
     */
    cancel(id: string, { signal }?: {
        signal?: AbortSignal;
    }): Promise<Record<string, any>>;
}
/** One stream: `for await (const event of stream)`, or `await stream.result()`. Iterated again, it goes on. */
export declare class Stream {
    #private;
    /** The stream's id, once it is known. */
    id: string;
    /** The cursor behind which this stream goes on. */
    lastEventId: string;
    /** @type {Stage[]} As far as they have come. */
    stages: Stage[];
    /** @type {"" | "done" | "failed" | "cancelled" | "unknown"} How it ended; unknown: before it was followed. */
    ended: "" | "done" | "failed" | "cancelled" | "unknown";
    /** Whether a graph has stopped to ask; known once the stream was followed to its end. */
    get interrupted(): boolean;
    /** @returns {Result["interrupts"]} What it asks. */
    get interrupts(): Result["interrupts"];
    /** The last stage's text, as far as it has come; of a graph, that of its last node that has said something. */
    get text(): string;
    /** @returns {Saved} Where it stands now: `Gateway.follow` goes on from there, in another page or after a reload too. */
    get saved(): Saved;
    /**
     * Connect anew at once, as the network or the page is back. It ends the pause between two tries, and gives up a
     * connection from which nothing came for `silence` seconds; the patience begins anew. A pause that the gateway has asked
     * for goes on. Before and behind an iteration it does nothing.
     * @param {number} [silence] Seconds; 0 gives up any connection.
     */
    reconnect(silence?: number): void;
    /** Every event once. Raises Refused, Unreachable, or the signal's reason. */
    [Symbol.asyncIterator](): AsyncGenerator<StreamEvent, void, unknown>;
    /**
     * Follow it to its end. Raises StreamFailed, StreamCancelled, Refused or Unreachable.
     * @returns {Promise<Result>}
     */
    result(): Promise<Result>;
    /**
     * End it at the gateway; answers the status document. One whose id is not known yet, as the answer was lost, is
     * found by its key. Raises Refused or Unreachable.
     * @returns {Promise<Record<string, any>>}
     */
    cancel(): Promise<Record<string, any>>;
}
