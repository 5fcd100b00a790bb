// Imported for its side effect: the clock of this script runs fifty times as fast as the gateway's, so that
// tests do not wait for a client's pauses. Node's own fetch uses the same clock to detect a silent answer,
// and would give up after 6 s. So here it has no time limit, because the gateway's heartbeats are not faster.
const wait = globalThis.setTimeout;
globalThis.setTimeout = (work, ms, ...given) => wait(work, ms / 50, ...given);

const DISPATCHER = Symbol.for('undici.globalDispatcher.1');
await fetch('data:,'); // this call creates the dispatcher
globalThis[DISPATCHER] = new globalThis[DISPATCHER].constructor({ bodyTimeout: 0, headersTimeout: 0 });
