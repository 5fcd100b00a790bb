// web/client.js alone: its decoder with the shared table of byte streams, and the client with a gateway that
// gives answers that ours gives rarely. Run by tests/test_client_js.py, which also tests the client with a
// real gateway.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { test } from "node:test";
import { Decoder, Gateway, GatewayError, Refused, StreamCancelled, StreamFailed, Unreachable } from "../../web/client.js";

const SPLIT_EVERYWHERE_BYTES = 1000; // longer streams are split only into pieces of these sizes
const PIECES_BYTES = [1, 1000, 4096, 65_537];
const table = JSON.parse(readFileSync(new URL("../streams.json", import.meta.url), "utf8"));
const whole = (given) => typeof given === "string" ? given : given.map((part) => typeof part === "string" ? part : part[0].repeat(part[1])).join("");

function decode(...feeds) {
  const decoder = new Decoder();
  const messages = feeds.flatMap((feed) => decoder.feed(feed));
  return { messages, last_id: decoder.lastId, retry_ms: decoder.retryMs };
}

for (const [group, rows] of Object.entries(table)) {
  for (const [name, row] of Object.entries(rows)) {
    test(`${group}: ${name}`, () => {
      const stream = Buffer.from(whole(row.stream), "latin1"); // in the table a character is a byte
      const messages = row.messages.map(({ data, type = "message", id = "" }) => ({ id, type, data: whole(data) }));
      const expected = { messages, last_id: row.last_id ?? "", retry_ms: row.retry_ms };
      assert.deepEqual(decode(stream), expected);
      const long = stream.length > SPLIT_EVERYWHERE_BYTES;
      for (let at = 0; !long && at <= stream.length; at++) {
        assert.deepEqual(decode(stream.subarray(0, at), stream.subarray(at)), expected, `at ${at}`);
        const nothing = stream.subarray(0, 0);
        assert.deepEqual(decode(stream.subarray(0, at), nothing, stream.subarray(at), nothing), expected, `at ${at}`);
      }
      for (const size of PIECES_BYTES.slice(long ? 1 : 0)) {
        const pieces = [];
        for (let at = 0; at < stream.length; at += size) pieces.push(stream.subarray(at, at + size));
        assert.deepEqual(decode(...pieces), expected, `pieces of ${size}`);
      }
    });
  }
}

test("an event is given as soon as its last byte is there", () => {
  const decoder = new Decoder();
  const feed = (text) => decoder.feed(Buffer.from(text)).map((message) => message.data);
  assert.deepEqual([feed("data: a\r\n"), feed("\r"), feed("\n")], [[], ["a"], []]);
});

test("an unfinished event is bounded, a stream is not", () => {
  const feed = (decoder, text) => decoder.feed(Buffer.from(text));
  const bounded = new Decoder(1000);
  for (let n = 0; n < 100; n++) assert.equal(feed(bounded, `data: ${"x".repeat(900)}\n\n`).length, 1);
  for (const line of ["data: ", "event: ", ": ", ""]) {
    const decoder = new Decoder(1000);
    feed(decoder, line + "x".repeat(900));
    assert.throws(() => feed(decoder, "x".repeat(200)), RangeError);
  }
  assert.throws(() => feed(new Decoder(1000), "data: 0123456789\n".repeat(100)), RangeError);
});

// A gateway that gives these answers one after the other, to a client whose clock runs a thousand times as
// fast.
const NOBODY = `00${"A".repeat(22)}`;
const wait = globalThis.setTimeout;
const quick = (work, ms, ...given) => wait(work, ms / 1000, ...given);
const atFastClock = (work) => async () => {
  globalThis.setTimeout = quick;
  await work().finally(() => { globalThis.setTimeout = wait; });
};

function gateway(...answers) {
  const asked = [];
  const fetch = async (url, init) => {
    asked.push({ url, ...init });
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    return answer;
  };
  return { asked, client: new Gateway("http://gateway/base/?code=1", { fetch, key: "secret", patience: 5, silence: 60_000 }) };
}

const answer = (body = "", status = 200, headers = {}) =>
  new Response(status === 204 ? null : body, { status, headers: { "x-stream-id": NOBODY, ...headers } });
const frame = (id, type, data) => `id: ${id}\n${type && `event: ${type}\n`}data: ${JSON.stringify(data)}\n\n`;
const said = (id, delta, stage = "c", more = {}) => frame(id, "", { deployment: "m", delta_content: delta, stage, ...more });
const begun = (id, name = "c", more = {}) => frame(id, "stage", { name, run: 1, index: 0, count: 1, state: "started", ...more });
const START = frame("0-aaaa", "start", { id: "x", chain: "c", stages: ["c"], created_at: "t" });
const DONE = frame("500-aaaa", "done", { finish_reason: "stop", usage: { total_tokens: 3 }, attempts: 1, duration_ms: 1 });
const LOST = 'id: 0\nevent: reset\ndata: {"reason":"log_lost"}\n\n';
const voids = (id, after) => frame(id, "reset", { attempt: 2, stage: "c", discard_after: after, reason: "r" });

async function all(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

test("the text is the fold of the events, and a lost log begins it anew", atFastClock(async () => {
  const { client, asked } = gateway(
    answer(`retry: 1\n${START}${begun("90-aaaa")}${said("200-aaaa", "old")}${voids("300-bbbb", "90-aaaa")}${said("400-aaaa", "new")}`),
    answer(`retry: 1\n${LOST}${START}${begun("90-aaaa")}${said("200-aaaa", "other")}${DONE}`),
  );
  const stream = client.stream({ user: "q" });
  const events = await all(stream);
  assert.equal(events.filter((event) => event.type === "reset").length, 2);
  assert.deepEqual(stream.stages.map((stage) => stage.text), ["other"]);
  assert.deepEqual([stream.text, stream.lastEventId, stream.id, stream.ended], ["other", "500-aaaa", NOBODY, "done"]);
  assert.equal(asked[0].url, "http://gateway/base/stream");
  assert.deepEqual([asked[0].method, asked[0].body, asked[0].headers.authorization], ["POST", '{"user":"q"}', "Bearer secret"]);
  assert.deepEqual([asked[1].url, asked[1].method], [`http://gateway/base/stream/${NOBODY}`, undefined]);
  assert.equal(asked[1].headers["last-event-id"], "400-aaaa");
}));

test("a reset voids text, tool and custom events of its stage, and the stages of its nodes", atFastClock(async () => {
  const tool = (id) => frame(id, "tool", { name: "t", call_id: "1", stage: "c", state: "started", input: {} });
  const { client } = gateway(answer(
    START + begun("1-aaaa", "first") + said("2-aaaa", "kept", "first") + begun("3-aaaa") + tool("4-aaaa")
    + begun("5-aaaa", "node", { parent: "c" }) + said("6-aaaa", "void", "node", { run: 1 }) + voids("7-aaaa", "3-aaaa") + tool("8-aaaa")
    + begun("9-aaaa", "node", { parent: "c" }) + begun("10-aaaa", "node", { parent: "c", run: 2 })
    + said("11-aaaa", "one", "node", { run: 1 }) + said("12-aaaa", "two", "node", { run: 2 })
    + frame("13-aaaa", "stage", { name: "node", run: 1, index: 0, count: 1, state: "finished", parent: "c" }) + DONE));
  const stream = client.stream({ user: "q" });
  const result = await stream.result();
  assert.deepEqual(stream.stages.map(({ name, run, text, state, events }) => [name, run, text, state, events.map(({ id }) => id)]), [
    ["first", 1, "kept", "started", []], ["c", 1, "", "started", ["8-aaaa"]],
    ["node", 1, "one", "finished", []], ["node", 2, "two", "started", []]]);
  assert.deepEqual(result.stages.map(({ name, run, text }) => [name, run, text]), [
    ["first", 1, "kept"], ["c", 1, ""], ["node", 1, "one"], ["node", 2, "two"]]);
  const { text, usage, finishReason, interrupts } = result;
  assert.deepEqual([text, usage, finishReason, interrupts], ["two", { total_tokens: 3 }, "stop", []]);
}));

test("the text of a graph is that of its last node that has said something, whatever its name", atFastClock(async () => {
  const ends = (id, name, more = {}) => frame(id, "stage", { name, run: 1, index: 0, count: 1, state: "finished", ...more });
  const graph = begun("1-aaaa") + begun("2-aaaa", "c", { parent: "c" }) + said("3-aaaa", "a", "c", { run: 1 }) + ends("4-aaaa", "c", { parent: "c" })
    + begun("5-aaaa", "save", { parent: "c" }) + ends("6-aaaa", "save", { parent: "c" }) + ends("7-aaaa", "c");
  const { text, stages } = await gateway(answer(START + graph + DONE)).client.stream({ user: "q" }).result();
  assert.deepEqual([text, ...stages.map(({ state }) => state)], ["a", "finished", "finished", "finished"]);
  const later = said("3-aaaa", "b", "answer", { run: 1 }) + ends("4-aaaa", "answer", { parent: "c" }) + ends("7-aaaa", "c") + DONE;
  assert.equal((await gateway(answer(later)).client.follow(NOBODY, "2-aaaa").result()).text, "b");
}));

test("a stream whose id never came is cancelled by its key", atFastClock(async () => {
  const { client, asked } = gateway(answer(`{"id":"${NOBODY}"}`, 202), answer('{"status":"cancelled"}'));
  assert.deepEqual(await client.stream({ user: "q", key: "mine" }).cancel(), { status: "cancelled" });
  assert.deepEqual(asked.map(({ method, url, body }) => [method, url, body]), [
    ["POST", "http://gateway/base/stream", '{"user":"q"}'], ["DELETE", `http://gateway/base/stream/${NOBODY}`, undefined]]);
  assert.equal(asked[0].headers["idempotency-key"], "mine");
}));

test("a POST is repeated under its key until it is answered, whatever goes wrong", atFastClock(async () => {
  const { client, asked } = gateway(new TypeError("fetch failed"), answer("", 503), answer("<html>", 502), answer(START + DONE));
  assert.deepEqual((await all(client.stream({ messages: [], chain: "c" }))).map((event) => event.type), ["start", "done"]);
  assert.equal(new Set(asked.map((request) => request.headers["idempotency-key"])).size, 1);
  assert.match(asked[0].headers["idempotency-key"], /^[0-9a-f]{32}$/);
  const other = gateway(answer(START + DONE));
  await all(other.client.stream({ user: "q", key: "mine" }));
  assert.equal(other.asked[0].headers["idempotency-key"], "mine");
}));

test("a type that this release does not know is given all the same, and is a cursor", atFastClock(async () => {
  const { client, asked } = gateway(answer(START + frame("100-aaaa", "from-later", { a: 1 })), answer(DONE));
  const events = await all(client.stream({ user: "q" }));
  assert.deepEqual(events.map(({ id, type, data }) => [id, type, data])[1], ["100-aaaa", "from-later", { a: 1 }]);
  assert.equal(asked[1].headers["last-event-id"], "100-aaaa");
}));

test("too many readers are asked again, and over quota at the start is told", atFastClock(async () => {
  const busy = answer('{"code":"too_many_readers","detail":"d"}', 429, { "retry-after": "1" });
  const { client } = gateway(answer(START), busy, answer(DONE));
  assert.deepEqual((await all(client.stream({ user: "q" }))).map((event) => event.type), ["start", "done"]);
  const over = gateway(answer('{"code":"over_quota","detail":"d"}', 429, { "retry-after": "17" }));
  await assert.rejects(over.client.stream({ user: "q" }).result(), (error) =>
    error instanceof Refused && error.code === "over_quota" && error.retryAfter === 17 && error.message === "d" && error.name === "Refused");
}));

test("204 is the end, and an answer without a problem is a refusal", atFastClock(async () => {
  assert.deepEqual(await all(gateway(answer("", 204)).client.follow(NOBODY, "500-aaaa")), []);
  for (const body of ["<html>", "null", '"x"']) {
    await assert.rejects(gateway(answer(body, 403)).client.follow(NOBODY).result(), { message: "HTTP 403", status: 403, code: "" });
  }
}));

test("a failure keeps the text, a cancellation is told", atFastClock(async () => {
  const failed = frame("9-aaaa", "failed", { code: "model_error", message: "m", retryable: true });
  await assert.rejects(gateway(answer(START + said("5-aaaa", "kept") + failed)).client.stream({ user: "q" }).result(), (error) =>
    error instanceof StreamFailed && error.text === "kept" && error.code === "model_error" && error.retryable);
  await assert.rejects(gateway(answer(START + frame("9-aaaa", "cancelled", {}))).client.stream({ user: "q" }).result(), StreamCancelled);
}));

test("what is no gateway is told as such, and not tried for ever", atFastClock(async () => {
  const no = (error) => error instanceof GatewayError && error.message.startsWith("what answers there is no gateway");
  await assert.rejects(all(gateway(answer("id: 1-aaaa\ndata: {\n\n")).client.stream({ user: "q" })), no);
  await assert.rejects(all(gateway(new Response("<html>")).client.stream({ user: "q" })), no);
  await assert.rejects(gateway(answer("<html>")).client.status(NOBODY), no);
}));

test("what was saved goes on elsewhere, with what it had said, and a lost start is the same start", atFastClock(async () => {
  const tool = frame("150-aaaa", "tool", { name: "t", call_id: "1", stage: "c", state: "started", input: {} });
  const first = gateway(answer(START + begun("90-aaaa") + said("100-aaaa", "a") + tool)).client.stream({ user: "q" });
  for await (const event of first) if (event.type === "tool") break;
  const saved = JSON.parse(JSON.stringify(first.saved));
  const { client, asked } = gateway(answer(said("200-aaaa", "b") + voids("300-bbbb", "90-aaaa") + said("400-aaaa", "c")), answer(DONE));
  const second = client.follow(saved);
  assert.deepEqual([second.id, second.text, second.stages[0].events[0].type], [NOBODY, "a", "tool"]);
  assert.deepEqual((await all(second)).map((event) => event.text || event.type), ["b", "reset", "c", "done"]);
  assert.deepEqual([second.text, asked[0].headers["last-event-id"], first.text, "start" in saved], ["c", "150-aaaa", "a", false]);

  const over = new AbortController();
  const away = gateway(new TypeError("fetch failed"));
  const unheard = away.client.stream({ user: "q", signal: over.signal, onConnection: () => over.abort() });
  await assert.rejects(all(unheard), { name: "AbortError" });
  const again = gateway(answer(START + DONE));
  await all(again.client.follow(JSON.parse(JSON.stringify(unheard.saved))));
  const request = ({ method, url, body, headers }) => [method, url, body, headers["idempotency-key"]];
  assert.deepEqual(request(again.asked[0]), request(away.asked[0]));
}));

test("reconnect ends a pause, but none that the gateway has asked for", { timeout: 20_000 }, atFastClock(async () => {
  const states = [], long = "retry: 60000000\n";
  const { client } = gateway(answer(long + START), answer(long + said("100-aaaa", "a")), answer(DONE));
  client.patience = Infinity;
  const stream = client.stream({ user: "q", onConnection: (open) => {
    states.push(open);
    if (!open) wait(() => stream.reconnect(), 1);
  } });
  assert.equal((await stream.result()).text, "a");
  assert.deepEqual(states, [true, false, true, false, true]);

  const busy = gateway(answer(START), answer('{"code":"too_many_readers"}', 429, { "retry-after": "999999" }));
  busy.client.patience = Infinity;
  const over = new AbortController();
  let lost = 0;
  const waits = busy.client.follow(NOBODY, "", { signal: over.signal, onConnection: (open) => {
    if (!open && ++lost === 2) wait(() => { waits.reconnect(); wait(() => over.abort(), 5); }, 1);
  } });
  await assert.rejects(all(waits), { name: "AbortError" }); // the cause must not be a missing third answer
  assert.equal(busy.asked.length, 2);
}));

test("status and cancel are asked again while the gateway is away, and refused at once otherwise", atFastClock(async () => {
  const { client, asked } = gateway(answer("", 503), answer('{"status":"running"}'), answer('{"status":"cancelled"}'));
  assert.equal((await client.status("a/b")).status, "running");
  assert.equal((await client.cancel("x")).status, "cancelled");
  assert.deepEqual(asked.map(({ method, url }) => [method, url]).slice(1), [["GET", "http://gateway/base/stream/a%2Fb"], ["DELETE", "http://gateway/base/stream/x"]]);
  await assert.rejects(gateway(answer('{"code":"not_found"}', 404)).client.status("x"), { code: "not_found" });
}));

// Tests over sockets.
const open = [];
async function serve(handle) {
  const server = createServer(handle).listen(0, "127.0.0.1");
  await once(server, "listening");
  open.push(server);
  return `http://127.0.0.1:${server.address().port}`;
}
test.after(() => open.forEach((server) => { server.closeAllConnections(); server.close(); }));

test("nobody there is told when the patience is at its end, with the last failure", async () => {
  const url = await serve((request) => request.socket.destroy());
  const client = new Gateway(url, { patience: 0.3 });
  for (const call of [() => client.stream({ user: "q" }).result(), () => client.status(NOBODY)]) {
    await assert.rejects(call(), (error) => error instanceof Unreachable && error.cause.cause instanceof TypeError);
  }
});

test("a connection without a byte is given up, and the next one goes on", { timeout: 20_000 }, async () => {
  let times = 0;
  const url = await serve((request, reply) => {
    reply.writeHead(200, { "content-type": "text/event-stream", "x-stream-id": NOBODY });
    times++;
    reply.write(request.headers["last-event-id"] ? DONE : START);
  });
  const client = new Gateway(url, { silence: 0.2 });
  assert.deepEqual((await all(client.stream({ user: "q" }))).map((event) => event.type), ["start", "done"]);
  assert.ok(times >= 2);
});

test("a signal ends the following at once, and following the same stream again goes on", { timeout: 20_000 }, async () => {
  const closed = [];
  const url = await serve((request, reply) => {
    reply.writeHead(200, { "content-type": "text/event-stream", "x-stream-id": NOBODY });
    reply.write(request.headers["last-event-id"] ? DONE : START);
    closed.push(once(reply, "close"));
  });
  const controller = new AbortController();
  const stream = new Gateway(url).stream({ user: "q", signal: controller.signal });
  await assert.rejects(async () => { for await (const event of stream) controller.abort(new Error(event.type)); }, { message: "start" });
  await closed[0]; // the connection is closed too
  await assert.rejects(all(stream), { message: "start" });
  assert.deepEqual((await all(new Gateway(url).follow(stream.id, stream.lastEventId))).map((event) => event.type), ["done"]);
  const pausing = new AbortController();
  const nowhere = new Gateway(url, { fetch: async () => { wait(() => pausing.abort(), 5); throw new TypeError("x"); } });
  await assert.rejects(nowhere.status(NOBODY, { signal: pausing.signal }), { name: "AbortError" });
});

test("leaving the loop closes the connection, and a second loop goes on behind the last event", { timeout: 20_000 }, async () => {
  const closed = [], cursors = [];
  const url = await serve((request, reply) => {
    cursors.push(request.headers["last-event-id"]);
    reply.writeHead(200, { "content-type": "text/event-stream", "x-stream-id": NOBODY });
    reply.write(cursors.length > 1 ? said("5-aaaa", "b") + DONE : START + said("4-aaaa", "a"));
    closed.push(once(reply, "close"));
  });
  const stream = new Gateway(url).stream({ user: "q" });
  for await (const event of stream) if (event.text === "a") break;
  await closed[0];
  assert.equal((await stream.result()).text, "ab");
  assert.deepEqual(cursors, [undefined, "4-aaaa"]);
});

test("reconnect gives a connection up that is silent for so long, and no event is lost", { timeout: 20_000 }, async () => {
  const cursors = [];
  const url = await serve((request, reply) => {
    cursors.push(request.headers["last-event-id"]);
    reply.writeHead(200, { "content-type": "text/event-stream", "x-stream-id": NOBODY });
    reply.write(cursors.length > 1 ? DONE : START);
  });
  const stream = new Gateway(url).stream({ user: "q" });
  const types = [];
  for await (const event of stream) {
    types.push(event.type);
    stream.reconnect(3600);
    if (event.type === "start") wait(() => stream.reconnect(), 1);
  }
  assert.deepEqual([types, cursors], [["start", "done"], [undefined, "0-aaaa"]]);
});

test("a URL that is none is told at once", () => {
  assert.throws(() => new Gateway("nowhere"), TypeError);
});
