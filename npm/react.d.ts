export type Gateway = import("./client.js").Gateway;
export type Question = Omit<import("./client.js").Question, "signal" | "onConnection">;
export type Stage = import("./client.js").Stage;
export type StreamEvent = import("./client.js").StreamEvent;
export type Status = "idle" | "starting" | "streaming" | "reconnecting" | "interrupted" | "done" | "failed" | "cancelled";
export type HookOptions = {
    /**
     * A stream to follow. Another id is followed instead; without one nothing changes.
     */
    id?: string;
    /**
     * An API key or a JWT, where the gateway is given by its URL.
     */
    key?: string;
    /**
     * Told of every event, once.
     */
    onEvent?: (event: StreamEvent) => void;
    /**
     * The name under which the stream is kept in this tab, so that a remounted component and
     * a reloaded page go on with it, behind its last event. What the stream has said is stored too, and its question until
     * the gateway has answered.
     */
    storageKey?: string;
    /**
     * Where; `sessionStorage` by default.
     */
    storage?: Pick<globalThis.Storage, "getItem" | "setItem" | "removeItem">;
};
export type State = {
    /**
     * The stream's id, once the gateway has told it.
     */
    id: string;
    status: Status;
    /**
     * The last stage's text, without what a `reset` has made void.
     */
    text: string;
    /**
     * The runs of its stages, in order.
     */
    stages: readonly Stage[];
    /**
     * The `tool` and `custom` events of its stages that stand, in order.
     */
    events: readonly StreamEvent[];
    /**
     * What a graph asks.
     */
    interrupts: import("./client.js").Result["interrupts"];
    /**
     * Why it is `failed`: StreamFailed or Refused. Unreachable while it is `reconnecting`:
     * the patience of the client is at its end, and the next try is made when the network or the tab comes back.
     */
    error: Error | undefined;
};
export type Actions = {
    /**
     * Start a stream and follow it; its id.
     */
    start: (question: Question) => Promise<string>;
    /**
     *   Answer what a graph asks, by the ids of its questions, and follow the stream that goes on; its id.
     */
    resume: (responses: Record<string, unknown> | object[], options?: {
        update?: Record<string, unknown>;
        goto?: unknown;
    }) => Promise<string>;
    /**
     * Try a failed stream
     * again, and follow the new one; its id.
     */
    retry: (options?: {
        from?: string;
        params?: object;
        key?: string;
    }) => Promise<string>;
    /**
     * End the stream at the gateway. Raises Refused or Unreachable.
     */
    cancel: () => Promise<void>;
    /**
     * Connect anew at once, where the connection is lost.
     */
    reconnect: () => void;
};
/** @typedef {import("./client.js").Gateway} Gateway */
/** @typedef {Omit<import("./client.js").Question, "signal" | "onConnection">} Question */
/** @typedef {import("./client.js").Stage} Stage */
/** @typedef {import("./client.js").StreamEvent} StreamEvent */
/**
 * @typedef {"idle" | "starting" | "streaming" | "reconnecting" | "interrupted" | "done" | "failed" | "cancelled"} Status
 * `starting`: it waits for the first connection. `reconnecting`: the connection is lost, and comes back by itself.
 * `interrupted`: a graph has stopped to ask, and `resume` answers it. `failed`: by itself, or the gateway has refused it.
 */
/**
 * @typedef {object} HookOptions
 * @property {string} [id] A stream to follow. Another id is followed instead; without one nothing changes.
 * @property {string} [key] An API key or a JWT, where the gateway is given by its URL.
 * @property {(event: StreamEvent) => void} [onEvent] Told of every event, once.
 * @property {string} [storageKey] The name under which the stream is kept in this tab, so that a remounted component and
 *   a reloaded page go on with it, behind its last event. What the stream has said is stored too, and its question until
 *   the gateway has answered.
 * @property {Pick<globalThis.Storage, "getItem" | "setItem" | "removeItem">} [storage] Where; `sessionStorage` by default.
 */
/**
 * @typedef {object} State
 * @property {string} id The stream's id, once the gateway has told it.
 * @property {Status} status
 * @property {string} text The last stage's text, without what a `reset` has made void.
 * @property {readonly Stage[]} stages The runs of its stages, in order.
 * @property {readonly StreamEvent[]} events The `tool` and `custom` events of its stages that stand, in order.
 * @property {import("./client.js").Result["interrupts"]} interrupts What a graph asks.
 * @property {Error | undefined} error Why it is `failed`: StreamFailed or Refused. Unreachable while it is `reconnecting`:
 *   the patience of the client is at its end, and the next try is made when the network or the tab comes back.
 */
/**
 * @typedef {object} Actions They stay the same in every render. A promise of an id settles when the gateway has answered,
 *   so not while it cannot be reached, nor after an unmount; it is rejected with Refused, or with an AbortError where
 *   another stream is followed instead. Nobody need await it.
 * @property {(question: Question) => Promise<string>} start Start a stream and follow it; its id.
 * @property {(responses: Record<string, unknown> | object[], options?: { update?: Record<string, unknown>, goto?: unknown }) => Promise<string>} resume
 *   Answer what a graph asks, by the ids of its questions, and follow the stream that goes on; its id.
 * @property {(options?: { from?: string, params?: object, key?: string }) => Promise<string>} retry Try a failed stream
 *   again, and follow the new one; its id.
 * @property {() => Promise<void>} cancel End the stream at the gateway. Raises Refused or Unreachable.
 * @property {() => void} reconnect Connect anew at once, where the connection is lost.
 */
/**
 * Follow a stream: one that is started by `start`, or that `id` names, or that was kept under `storageKey`.
 * @param {Gateway | string | URL} gateway A gateway, or its URL; `""` is the page's own.
 * @param {HookOptions} [options]
 * @returns {State & Actions}
 */
export declare function useHoldfastStream(gateway: Gateway | string | URL, options?: HookOptions): State & Actions;
