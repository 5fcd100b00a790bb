/**
 * A React hook that follows one stream of a gateway, for React 18 or later:
 *
 *     const { text, status, start, cancel } = useHoldfastStream("https://host/api", { storageKey: "answer" });
 *
 * Unmounting ends the following, and never the stream. A lost connection comes back by itself, at once when the
 * network is back or the tab is seen again. react.d.ts is made from this module by scripts/vendor.
 */
import { useEffect, useState, useSyncExternalStore } from "react";
import { Follower, IDLE, isGateway } from "./follower.js";

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
export function useHoldfastStream(gateway, options = {}) {
  const { id = "", storageKey = "" } = options;
  const place = `${isGateway(gateway) ? gateway.url : gateway} ${storageKey}`;
  const [follower] = useState(() => new Follower(gateway, options, place));
  useEffect(() => follower.configure(gateway, options));
  useEffect(() => follower.attach(place), [follower, place]);
  useEffect(() => follower.show(id), [follower, id]);
  const state = useSyncExternalStore(follower.subscribe, follower.state, () => IDLE);
  const { start, resume, retry, cancel, reconnect } = follower;
  return { ...state, start, resume, retry, cancel, reconnect };
}
