// Imported for what it does: this script's clock runs fifty times as fast as the gateway's, so that nobody waits for a
// client's pauses. Node's own fetch measures by the same clock that an answer is silent, and would give up after 6 s:
// here it waits without a bound, as the gateway's heartbeats do not run any faster.
const wait = globalThis.setTimeout;
globalThis.setTimeout = (work, ms, ...given) => wait(work, ms / 50, ...given);

const DISPATCHER = Symbol.for('undici.globalDispatcher.1');
await fetch('data:,'); // it makes the dispatcher
globalThis[DISPATCHER] = new globalThis[DISPATCHER].constructor({ bodyTimeout: 0, headersTimeout: 0 });
