// Tests of the object that a component follows, without React and a browser: a stream that had ended before,
// a full storage, and an unknown id. The gateway gives these answers one after the other.
import assert from "node:assert/strict";
import { Gateway } from "holdfast-client";
import { Follower } from "./node_modules/holdfast-client/follower.js"; // an internal file of the package

globalThis.window = new EventTarget();
globalThis.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
const kept = new Map();
const storage = { getItem: (name) => kept.get(name) ?? null, setItem: (name, text) => kept.set(name, text), removeItem: (name) => kept.delete(name) };
const answers = [], asked = [], seen = [];
async function fetch(url, init) {
  asked.push(url);
  const answer = answers.shift();
  if (answer instanceof Response) return answer;
  if (answer) throw answer;
  return new Promise((_, reject) => init.signal.addEventListener("abort", () => reject(init.signal.reason)));
}
const gateway = new Gateway("http://gateway", { fetch, patience: 0.01 });
const options = { storageKey: "k", storage, onEvent: (event) => seen.push(event.id) };
const frame = (id, type, data) => `id: ${id}\n${type && `event: ${type}\n`}data: ${JSON.stringify(data)}\n\n`;
const ended = () => new Response(null, { status: 204 });
const until = (follower, right) => new Promise((resolve) => {
  const look = () => right(follower.state()) && resolve();
  follower.subscribe(look);
  look();
});
const has = (status) => (state) => state.status === status;

const first = new Follower(gateway, options, "p");
let detach = first.attach("p");
answers.push(new Response(frame("1-a", "start", {}) + frame("2-a", "", { delta_content: "x", stage: "c" }) + frame("3-a", "done", { finish_reason: "stop" }),
  { headers: { "x-stream-id": "ID" } }));
assert.equal(await first.start({ user: "q" }), "ID");
await until(first, has("done"));
assert.deepEqual([first.state().text, seen], ["x", ["1-a", "2-a", "3-a"]]);
detach();
first.attach("p")();
assert.equal(asked.length, 1); // an ended stream is not requested again

const second = new Follower(gateway, options, "p");
answers.push(ended(), new TypeError("fetch failed"));
detach = second.attach("p");
await until(second, (state) => state.error?.name === "Unreachable");
assert.deepEqual([second.state().status, second.state().text], ["reconnecting", "x"]);
answers.push(new Response('{"status":"waiting","interrupts":[{"id":"i","value":"?"}]}'));
window.dispatchEvent(new Event("online"));
await until(second, has("interrupted"));
assert.deepEqual([second.state().interrupts.length, second.state().error], [1, undefined]);
detach();

const third = new Follower(gateway, options, "p");
answers.push(ended()); // and then no more answer
const before = asked.length;
detach = third.attach("p");
while (asked.length < before + 2) await new Promise(setImmediate);
detach();
answers.push(ended(), new Response('{"status":"done"}'));
detach = third.attach("p");
await until(third, has("done"));
detach();

const full = { ...storage, setItem: (name, text) => {
  if (text.includes('"x"')) throw new DOMException("full", "QuotaExceededError");
  kept.set(name, text);
} };
const fourth = new Follower(gateway, { ...options, storage: full }, "p");
answers.push(ended(), new Response('{"status":"done"}'));
detach = fourth.attach("p");
await until(fourth, has("done"));
detach();
assert.deepEqual(JSON.parse(kept.get("k")).saved, { id: "ID", after: "", stages: [], begun: [] });

const nobody = new Follower(gateway, { ...options, id: "NOBODY" }, "p");
answers.push(new Response('{"code":"not_found"}', { status: 404 }));
detach = nobody.attach("p");
await until(nobody, has("failed"));
detach();
assert.deepEqual([nobody.state().error.status, kept.has("k"), seen.length, answers.length], [404, false, 3, 0]);
console.log("as it should be");
