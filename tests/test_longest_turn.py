"""No caller can block the event loop for longer than 50 ms (`docs/operations.md`, "The longest turn").

The tests measure the processor time of the whole process, so a busy machine makes no test fail.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway import protocol
from gateway.formats.langgraph.request import begin_state, parse_run
from gateway.hosts.asgi import ROUTES, app
from gateway.protocol import ANONYMOUS, Event, new_token, sse
from gateway.protocol.errors import Invalid, TooManyReaders
from gateway.redis.connection import Connection
from gateway.runtime.json_pieces import pieces
from gateway.runtime.off_loop import LARGE, _line, aside
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.streams.input_schemas import TOO_LONG, Inputs
from gateway.streams.room import Room
from gateway.streams.service import Gateway
from gateway.streams.start import DEFAULT, Start, parse_json
from tests.callers import BOB, TOKEN_KEYS, by_key, keys_file
from tests.support.following import until
from tests.support.processes import GatewayProcess
from tests.support.turns import Watch, cost
from workers.chains.asked import ASKED

BOUND_SECONDS = 0.050
MOST_TRIES = 10  # Tries of a measurement. If the time is long in each try, our own code needs it.
MOST = DEFAULT.bytes
EVENTS = {"accept": "text/event-stream"}


def asked(messages: list[Any]) -> Any:
    return parse_run({"assistant_id": "chat", "input": {"messages": messages}})


MANY = {
    "texts": ["a"] * 10_000,
    "messages of other ids": [{"type": "human", "content": "a", "id": f"{n}"} for n in range(4000)],
    "removals": ["a"] * 999 + [{"type": "remove", "id": "x"} for _ in range(9001)],
    "answers of tools": [{"type": "tool"} for _ in range(10_000)],
}


@pytest.mark.parametrize("messages", MANY.values(), ids=MANY)
def test_fault_59_messages_past_their_bound_are_counted_before_any_is_looked_at(messages: list[Any]) -> None:
    def refused() -> None:
        with pytest.raises(Invalid, match=r"input.messages: must be at most 1000"):
            begin_state(asked(messages), [], DEFAULT)

    assert cost(refused, BOUND_SECONDS / 10) < BOUND_SECONDS / 10


def test_fault_59_messages_are_added_in_a_time_that_grows_as_they_do() -> None:
    before = [{"type": "human", "content": "a", "id": f"{n}"} for n in range(500)]
    run = asked([{"type": "human", "content": "b", "id": f"{n}"} for n in range(1000)])
    assert cost(lambda: begin_state(run, before, DEFAULT), BOUND_SECONDS / 2) < BOUND_SECONDS / 2
    again = asked([{"type": "remove", "id": f"{n}"} for n in range(499)] + ["a"] * 500)
    assert cost(lambda: begin_state(again, before, DEFAULT), BOUND_SECONDS / 2) < BOUND_SECONDS / 2
    assert len(begin_state(again, before, DEFAULT)["messages"]) == 501


ROW = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
SCHEMAS: dict[str, tuple[Any, Any]] = {
    "a wrong conversation": (ASKED, [{"role": "user", "content": 1}] * 9000),
    "a conversation of wrong things": (ASKED, [1] * 10_000),
    "many ways to be wrong": (
        {"items": {"anyOf": [{"anyOf": [{"type": "object"}] * 10}] * 10}},
        [1] * 10_000,
    ),
    "objects alike but for one": (
        {"uniqueItems": True, "items": ROW},
        [{"a": n, "b": "x"} for n in range(9000)],
    ),
    "a pattern that tries all": ({"pattern": "^(a|aa)+$"}, "a" * 5000 + "!"),
    "names that a pattern tries": ({"patternProperties": {"^(a+)+$": {}}}, {"a" * 190 + "!": 1}),
    "names that may not be": (
        {"patternProperties": {"^(a|aa)+$": {}}, "additionalProperties": False},
        {"a" * 190 + "!": 1},
    ),
}


@pytest.mark.parametrize(("schema", "given"), SCHEMAS.values(), ids=SCHEMAS)
@pytest.mark.slow
async def test_fault_60_an_input_that_a_schema_is_long_at_lets_the_loop_go_on(
    schema: Any, given: Any
) -> None:
    inputs = Inputs({"c": schema})
    best = float("inf")
    for _ in range(MOST_TRIES):
        watch = Watch()
        with suppress(Invalid):
            await inputs.hold(Start("c", {"input": given}, {}))
        best = min(best, watch.take())
        watch.close()
        if best < BOUND_SECONDS:
            return
    pytest.fail(f"{best * 1000:.0f} ms")


RESUME = "/stream/" + "00" + "A" * 22 + "/resume"
READING: dict[str, Any] = {  # path -> a body that is so large that a thread parses it
    "/stream": {"user": "x" * LARGE},
    "/api/http_trigger": {"user": "x" * LARGE, "not": "known"},
    RESUME: {"responses": [{"interrupt_id": "x", "response": "x" * LARGE}]},
    "/runs": {"assistant_id": "chat", "input": {"messages": ["x" * LARGE]}},
    "/threads": {"thread_id": "x" * LARGE},
    "/threads/t/history": {"x": "x" * LARGE},
    "/streams/events": {"x": "x" * LARGE},
    "/v1/responses": {"model": "chat", "input": "x" * LARGE, "background": True},
    "/v1/chat/completions": {"model": "chat", "messages": "x" * LARGE},
    "/api/chat": {"id": "c", "messages": "x" * LARGE},
    "/agui/chat": {"threadId": "t", "runId": "r", "messages": "x" * LARGE},
}


@pytest.mark.parametrize("path", READING)
async def test_fault_60_whoever_sends_many_large_bodies_waits_behind_his_own(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "keys").write_text(keys_file((BOB, "bob")))
    settings = Settings(
        redis_url=redis_url, auth="keys", keys_file=str(tmp_path / "keys"), token_keys=TOKEN_KEYS[0]
    )
    gateway = Gateway(settings, {"chat": ["chat"]}, schemas={"chat": ASKED})
    transport = httpx.ASGITransport(app=app(gateway))
    held, order = threading.Event(), list[str]()

    def parsed(*given: Any) -> Any:
        order.append("bob")
        return parse_json(*given)

    monkeypatch.setattr("gateway.streams.start.parse_json", parsed)
    works: list[Callable[[], object]] = [held.wait, *([partial(order.append, "alice")] * 9)]
    flood = [asyncio.create_task(aside(LARGE, work, "key:alice")) for work in works]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        asking = asyncio.create_task(http.post(path, json=READING[path], headers=by_key(BOB)))
        await until(lambda: "key:bob" in _line()._waiting)
        held.set()
        assert (await asking).status_code < 500
    await asyncio.gather(*flood)
    assert "bob" in order[:2]
    await gateway.close()


async def test_fault_60_work_that_nobody_waits_for_any_more_is_left_out() -> None:
    held, done = threading.Event(), list[str]()
    first = asyncio.create_task(aside(LARGE, held.wait))
    others = [asyncio.create_task(aside(LARGE, partial(done.append, name), name)) for name in "abc"]
    await asyncio.sleep(0)
    others[1].cancel()
    await asyncio.gather(others[1], return_exceptions=True)
    held.set()
    await asyncio.gather(first, others[0], others[2])
    assert done == ["a", "c"]


def test_fault_60_a_check_that_takes_too_long_is_told_as_a_rule() -> None:
    schema, given = SCHEMAS["a pattern that tries all"]
    with pytest.raises(Invalid) as caught:
        Inputs({"c": schema}).check(Start("c", {"input": given}, {}, sent="input"))
    assert caught.value.extensions == {"field": "input", "rule": TOO_LONG}


def test_fault_60_numbers_of_one_hash_take_no_square_of_their_count() -> None:
    numbers = [(2**61 - 1) * n for n in range(1, 10_000)]
    checked = Inputs({"c": {"uniqueItems": True}})
    assert cost(lambda: checked.check(Start("c", {"input": numbers}, {}))) < BOUND_SECONDS


DEEP: Any = 1
for _ in range(190):
    DEEP = {"a": DEEP}
NODE = {"anyOf": [{"type": "string"}, {"properties": {"a": {"$ref": "#"}}, "additionalProperties": False}]}


@pytest.mark.parametrize(
    ("schema", "given", "rule"),
    [
        (NODE, DEEP, TOO_LONG),
        ({"multipleOf": 0.5}, 10**400, None),
        ({"multipleOf": 0.75}, 10**400, "must keep to multipleOf: 0.75"),
    ],
    ids=["deep", "a multiple beyond floats", "none beyond floats"],
)
async def test_fault_60_no_input_makes_the_check_itself_fail(
    schema: Any, given: Any, rule: str | None
) -> None:
    start = Start("c", {"input": given}, {}, sent="input")
    if rule is None:
        await Inputs({"c": schema}).hold(start)
        return
    with pytest.raises(Invalid) as caught:
        await Inputs({"c": schema}).hold(start)
    assert caught.value.extensions["rule"] == rule


@pytest.mark.parametrize(
    ("items", "unique"),
    [
        ([1, True, "1", None, [1], {"a": 1}], True),
        ([1, 1.0], False),
        ([{"a": [1, 2]}, {"a": [1.0, 2]}], False),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], False),
        ([[True], [1]], True),
        ([2**61 - 1, 2 * (2**61 - 1), -(2**70), 1e300], True),
        ([2**53, float(2**53)], False),
        ([10**22, 1e22], False),
    ],
)
def test_fault_60_items_are_the_same_as_json_says(items: list[Any], unique: bool) -> None:
    checked = Inputs({"c": {"uniqueItems": True}})
    if unique:
        checked.check(Start("c", {"input": items}, {}))
    else:
        with pytest.raises(Invalid, match="must keep to uniqueItems: true"):
            checked.check(Start("c", {"input": items}, {}))


async def test_fault_62_who_finds_no_room_waits_in_turn_or_is_told() -> None:
    room = Room(100)
    first = await room.take(80)
    second = asyncio.create_task(room.take(50))
    third = asyncio.create_task(room.take(10))
    await asyncio.sleep(0)
    assert not second.done()
    assert not third.done()  # It would fit, but `second` comes first.
    first.keep(40)
    shares = [await second, await third]
    assert room.held == 100
    fourth = asyncio.create_task(room.take(1000))
    await asyncio.sleep(0)
    fourth.cancel()
    await asyncio.gather(fourth, return_exceptions=True)
    del first
    shares.clear()
    second = third = fourth = None  # type: ignore[assignment]
    assert room.held == 0
    whole = await room.take(1000)  # A share larger than the room takes the whole room.
    assert room.held == 100
    del whole
    assert room.held == 0


async def test_fault_62_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.streams.room.PATIENCE_SECONDS", 0.01)
    room = Room(10)
    share = await room.take(10)
    with pytest.raises(TooManyReaders):
        await room.take(1)
    del share
    assert room.held == 0


async def test_fault_62_what_tells_no_document_waits_for_no_room(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.streams.room.PATIENCE_SECONDS", 0.05)
    gateway = Gateway(Settings(redis_url=redis_url), {"chat": ["chat"]})
    transport = httpx.ASGITransport(app=app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:

        async def run(**more: str) -> str:
            asked = {"assistant_id": "chat", "input": {"messages": [str(more)]}, **more}
            answer = await http.post("/threads/t/runs", json=asked)
            assert answer.status_code == 200, answer.text  # A started run is not refused.
            return str(answer.json()["run_id"])

        first = await run()
        share = await gateway._room.take(10**12)
        second = await run(multitask_strategy="rollback")
        assert (await gateway.find(first, ANONYMOUS)).ended
        answer = await http.post(f"/threads/t/runs/{second}/cancel")
        assert answer.status_code == 202
        assert (await gateway.find(second, ANONYMOUS)).ended
        assert (await http.delete("/threads/t")).status_code == 204
        del share
    await gateway.close()


LONG_VALUES: list[Any] = [
    {"a": 'x"é\u2028' * 20_000, "b": [1, {"c": "\U0001f600" * 50_000}, []], "d": {}, "e": None},
    {"half": "\ud800" * 20_000 + "é"},
    [[n] for n in range(10_000)],
]


@pytest.mark.parametrize("value", LONG_VALUES, ids=["texts", "half pairs", "small ones"])
def test_fault_62_a_document_in_pieces_is_the_same_document(value: Any) -> None:
    made = list(pieces(value))
    assert json.loads(b"".join(made)) == value
    assert all(len(piece) < 2 * 128 * 1024 for piece in made)


# Every route is measured with the largest body that it accepts, and with a long stream.


def filled(before: str, item: str, after: str, most: int = 9990) -> bytes:
    """Return a body of the largest accepted size: lists that contain the item at most `most` times each."""
    count = (MOST - len(before) - len(after) - 200) // (len(item.encode()) + 1)
    rows = [f"[{','.join([item] * min(most, count - at))}]" for at in range(0, count, most)]
    return f"{before}[{','.join(rows)}]{after}".encode()


def flat(before: str, item: str, after: str, most: int = 9990) -> bytes:
    """Return a body with one list that contains the item at most `most` times."""
    count = min(most, (MOST - len(before) - len(after) - 10) // (len(item.encode()) + 1))
    return f"{before}[{','.join([item] * count)}]{after}".encode()


A2A = "/a2a/chat"
A2A_BEFORE = (
    '{"jsonrpc":"2.0","id":1,"method":"SendStreamingMessage",'
    '"params":{"message":{"messageId":"x","role":"ROLE_USER","parts":'
)
ITEMS = {
    "numbers": "1e1",
    "lists": "[]",
    "objects": '{"a":1}',
    "long numbers": "9" * 4000,
    "half pairs": '"\\ud800"',
}
TALK = '{"role":"user","content":"' + "a" * 220 + '"}'
PART = '{"type":"text","text":"a"}'
ANY = {
    RESUME: ('{"responses":[{"interrupt_id":"x","response":', "}]}"),
    "/stream": ('{"chain":"chat","user":"x","params":{"a":', "}}"),
    "/runs": ('{"assistant_id":"chat","input":{"messages":["x"]},"context":{"a":', "}}"),
    "/threads": ('{"x":', "}"),
    "/threads/{thread}/commands": (
        '{"id":1,"method":"run.start","params":{"assistant_id":"chat","input":{"a":',
        "}}}",
    ),
    "/threads/{thread}/stream/events": ('{"channels":["values"],"namespaces":', "}"),
    "/threads/t/history": ('{"x":', "}"),
    "/streams/events": ('{"streams":[{"id":"x","last_event_id":', "}]}"),
    "/v1/responses": ('{"model":"chat","background":true,"input":"x","reasoning":{"a":', "}}"),
    "/v1/chat/completions": (
        '{"model":"chat","messages":[{"role":"user","content":"x"}],"stream":true,"reasoning":{"a":',
        "}}",
    ),
    "/api/chat": (
        '{"id":"c","messages":[{"role":"user","parts":[{"type":"text","text":"x"}]}],"params":{"a":',
        "}}",
    ),
    "/agui/{chain}": (
        '{"threadId":"t","runId":"r","messages":[{"id":"u","role":"user","content":"x"}],"forwardedProps":',
        "}",
    ),
    "/api/http_trigger": ('{"user":"x","a":', "}"),
    A2A: (f'{A2A_BEFORE}[{{"data":', "}]}}}"),
    "/mcp": (
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"chat","arguments":{"user":"x"},"a":',
        "}}",
    ),
}
PARTS = {
    A2A: (A2A_BEFORE, "}}}"),
    "/stream": ('{"chain":"chat","messages":[{"role":"user","content":', "}]}"),
    "/runs": ('{"assistant_id":"chat","input":{"messages":[{"role":"user","content":', "}]}}"),
    "/v1/responses": ('{"model":"chat","background":true,"input":[{"role":"user","content":', "}]}"),
    "/v1/chat/completions": ('{"model":"chat","stream":true,"messages":[{"role":"user","content":', "}]}"),
    "/api/chat": ('{"id":"c","messages":[{"role":"user","parts":', "}]}"),
}


def decided(before: str, item: str, after: str) -> bytes:
    """Return a body with 999 answers to approvals, the most of one question. `#` becomes an approval's id."""
    items = (item.replace("#", f"{'0' * 24}.{'a' * 32}.{number}-999") for number in range(1, 1000))
    return f"{before}[{','.join(items)}]{after}".encode()


BODIES: list[tuple[str, str, bytes]] = [
    (
        "/api/chat",
        "approvals",
        decided(
            '{"id":"c","messages":[{"role":"assistant","parts":',
            '{"type":"tool-t","toolCallId":"c","state":"approval-responded",'
            '"approval":{"id":"#","approved":true}}',
            "}]}",
        ),
    ),
    (
        "/v1/responses",
        "approvals",
        decided(
            '{"model":"chat","input":',
            '{"type":"mcp_approval_response","approval_request_id":"mcpr_#","approve":true}',
            "}",
        ),
    ),
    *(
        (route, name, filled(*ends[:1], item, ends[1]))
        for route, ends in ANY.items()
        for name, item in ITEMS.items()
    ),
    *((route, "parts", flat(*ends[:1], PART, ends[1])) for route, ends in PARTS.items()),
    ("/streams/events", "streams", flat('{"streams":', '{"id":"000000000000000000000000"}', "}")),
    (RESUME, "answers", flat('{"responses":', '{"interrupt_id":"x","response":1}', "}", 1000)),
    ("/stream", "messages", flat('{"chain":"chat","messages":', TALK, "}", 1000)),
    ("/stream", "a conversation", flat('{"chain":"chat","input":', '{"role":"user","content":"a"}', "}")),
    ("/stream", "a wrong conversation", flat('{"chain":"chat","input":', '{"role":"user","content":1}', "}")),
    ("/stream", "wrong things", flat('{"chain":"chat","input":', "1", "}")),
    ("/stream/{id}/retry", "input_patch", flat('{"input_patch":{"a":', "1", "}}")),
    ("/stream/{id}/retry", "params", flat('{"params":{"a":', "1", "}}")),
    ("/runs", "messages", flat('{"assistant_id":"chat","input":{"messages":', TALK, "}}", 1000)),
    (
        "/threads/{thread}/commands",
        "answers",
        flat('{"id":1,"method":"input.respond","params":{"responses":', '{"interrupt_id":"x"}', "}}"),
    ),
    ("/threads/{thread}/stream/events", "channels", flat('{"channels":', '"values"', "}")),
    ("/runs", "texts", flat('{"assistant_id":"chat","input":{"messages":', '"a"', "}}")),
    ("/v1/chat/completions", "messages", flat('{"model":"chat","stream":true,"messages":', TALK, "}", 1000)),
    (
        "/agui/{chain}",
        "messages",
        flat('{"threadId":"t","runId":"r","messages":', '{"role":"user","content":"a"}', "}", 1000),
    ),
    (
        "/agui/{chain}",
        "answers",
        flat(
            '{"threadId":"t","runId":"r","messages":[],"resume":',
            '{"interruptId":"x","status":"resolved"}',
            "}",
        ),
    ),
    (
        "/agui/{chain}",
        "tools",
        flat('{"threadId":"t","runId":"r","messages":[],"tools":', '{"name":"x"}', "}"),
    ),
    ("/api/http_trigger", "a text", b'{"user":"' + b"a" * (MOST - 20) + b'"}'),
]
# This route needs a write token. `test_fault_63_no_line_of_a_producer_makes_a_long_turn` measures it.
WRITTEN = "/stream/{id}/events"
NOBODY = "00" + "A" * 22  # A valid id that no stream has.
NO_BODY = {"/stream/{id}/token", "/threads/{thread}/runs/{id}/cancel", "/v1/responses/{id}/cancel"}
ALIKE = {  # route -> a measured route whose body is read by the same code
    "/stream/{id}/resume": RESUME,
    "/a2a/{chain}": A2A,
    "/threads/{thread}/history": "/threads/t/history",
    "/threads/{thread}/state/checkpoint": "/threads/t/history",
    **dict.fromkeys(("/threads/search", "/threads/count"), "/threads/t/history"),
    **dict.fromkeys(("/assistants/search", "/assistants/count"), "/threads/t/history"),
    **{f"/threads/{{thread}}/runs{end}": "/runs" for end in ("", "/stream", "/wait")},
    **{f"/runs{end}": "/runs" for end in ("/stream", "/wait")},
}


def test_fault_63_every_route_with_a_body_is_measured() -> None:
    posts = {path for method, path, _ in ROUTES if method == "POST"} - NO_BODY - {WRITTEN}
    assert {ALIKE.get(path, path) for path in posts} == {route for route, _, _ in BODIES}


@dataclass
class Measured:
    """A process whose turns are measured. `rows` has the longest turn of each request in milliseconds."""

    web: GatewayProcess
    http: httpx.AsyncClient
    log: Log
    rows: list[tuple[float, str, str]]

    async def ask(self, method: str, path: str, what: str, content: bytes = b"", **headers: str) -> None:
        """Send a request, and repeat it while its turn is long: other work can be the cause."""
        best = float("inf")
        told = {"content-type": "application/json"} | headers if content else headers
        for _ in range(MOST_TRIES):
            await self.http.get("/turns")
            async with self.http.stream(method, path, content=content, headers=told) as answer:
                assert answer.status_code < 500, (path, what, answer.status_code)
                if not content or "event-stream" not in answer.headers.get("content-type", ""):
                    async for _ in answer.aiter_bytes():
                        pass
            best = min(best, (await self.http.get("/turns")).json())
            if best < BOUND_SECONDS * 1000:
                break
        self.rows.append((best, f"{method} {path[:60]}", what))

    def assert_short(self) -> None:
        for milliseconds, route, what in sorted(self.rows, reverse=True):
            print(f"{milliseconds:6.1f} ms  {route}  {what}")
        assert max(self.rows)[0] < BOUND_SECONDS * 1000


@pytest.fixture
async def measured(redis_url: str) -> AsyncIterator[Measured]:
    environment = {"REDIS_URL": redis_url, "OPENAI_BASE_URL": "http://127.0.0.1:1"}
    async with (
        GatewayProcess("web", environment, module="tests.support.turns") as web,
        httpx.AsyncClient(base_url=web.url, timeout=60) as http,
    ):
        connection = Connection(redis_url, name="test")
        yield Measured(web, http, Log(connection), [])
        await connection.close()


@pytest.mark.slow
async def test_fault_63_no_body_makes_a_long_turn(measured: Measured) -> None:
    assert all(len(body) <= MOST for _, _, body in BODIES)
    for route, name, body in BODIES:
        await measured.ask(
            "POST",
            route.replace("{id}", NOBODY).replace("{thread}", "t").replace("{chain}", "chat"),
            name,
            body,
        )
    many = ",".join(["text/x;q=0.1;q=0"] * 2000)
    await measured.ask("GET", f"/stream/{NOBODY}", "Accept of 34 kB", accept=many)
    measured.assert_short()


@pytest.mark.slow
async def test_fault_63_no_line_of_a_producer_makes_a_long_turn(measured: Measured) -> None:
    said = b'{"type":"text","stage":"c","text":"a"}\n'
    many = b'{"type":"stage","name":"c","state":"started"}\n' + said * ((MOST - 100) // len(said))
    deep = b'{"type":"custom","stage":"c","name":"n","data":[' + b"[]," * ((MOST - 200) // 3) + b"1]}\n"
    for name, body in {"texts": many, "no texts": b"x\n" * (MOST // 2), "lists": deep}.items():
        for attempt in ("first", "second"):  # The second is matched with the first.
            opened = await measured.http.post(
                "/stream", json={"producer": True, "chain": "c"}, headers={"idempotency-key": name}
            )
            token = {"x-write-token": opened.json()["write_token"], "content-type": "application/x-ndjson"}
            path = f"/stream/{opened.json()['id']}/events?position=0"
            await measured.ask("POST", path, f"{name}, {attempt}", body, **token)
    measured.assert_short()


async def written(log: Log, stream_id: str, size: int, count: int) -> None:
    """Write the events of a stream: about `size` characters of text in `count` events, and the end."""
    token = new_token()
    claim = (await log.claim(stream_id, token, 60_000)).claim
    assert claim is not None
    tag, position = protocol.tag_of(token), claim.log_end
    stage = protocol.stage("chat", run=1, index=0, count=1)
    done = protocol.done(finish_reason="stop", usage={}, attempts=1, duration_ms=1)
    said = protocol.text("é" + "a" * (size // count - 1), deployment="d", stage="chat")
    events: list[Event] = [stage, *([said] * count), done]
    block, start, last = bytearray(), position, ""
    for number, event in enumerate(events):
        last = f"{position}-{tag}"
        block += sse.encode(event, position, tag)
        position = start + len(block)
        final = number == len(events) - 1
        if len(block) > 1024 * 1024 or final:
            status = protocol.Status.DONE if final else ""
            answer = await log.append(claim, start, bytes(block), last, 60_000, status=status)
            assert answer.word == "ok", answer
            block, start = bytearray(), position


async def long_run(measured: Measured, size: int, count: int = 2000) -> str:
    """Start a run in the thread `t`, write its events up to its end, and return its id."""
    answer = await measured.http.post(
        "/threads/t/runs", json={"assistant_id": "chat", "input": {"messages": ["q"]}}
    )
    assert answer.status_code == 200, answer.text
    run: str = answer.json()["run_id"]
    await written(measured.log, run, size, count)
    return run


@pytest.mark.slow
async def test_fault_63_no_stream_makes_a_long_turn(measured: Measured) -> None:
    run = await long_run(measured, 8 * 1024 * 1024)
    reads: Mapping[str, dict[str, str]] = {
        f"/stream/{run}": {"accept": "application/json"},
        f"/stream/{run}?": EVENTS,
        f"/v1/responses/{run}": {},
        f"/v1/responses/{run}?stream=true": {},
        "/threads/t": {},
        "/threads/t/state": {},
        "/threads/t/runs?limit=1": {},
        f"/threads/t/runs/{run}/join": {},
        f"/threads/t/runs/{run}/stream?last_event_id=-1&stream_mode=messages-tuple": {},
        f"/threads/t/runs/{run}/stream?last_event_id=-1&stream_mode=values": {},
        f"/agui/chat/{run}": {},
        f"/durable/{run}": {},
        f"/durable/{run}?offset=-1&live=sse": {},
    }
    for path, headers in reads.items():
        await measured.ask("GET", path, "8 MiB of text", b"", **headers)
    await measured.ask("POST", "/threads/t/history", "8 MiB of text", b"{}")
    await measured.ask("POST", "/threads/search", "8 MiB of text", b"{}")
    measured.assert_short()


@pytest.mark.slow
async def test_fault_65_a_page_of_runs_reads_no_more_runs_than_it_shows(
    measured: Measured, redis: Redis
) -> None:
    ids: list[str] = []
    for number in range(6):
        body = {
            "assistant_id": "chat",
            "input": {"messages": [f"q{number}"]},
            "multitask_strategy": "interrupt",
        }
        answer = await measured.http.post("/threads/t/runs", json=body)
        ids.insert(0, answer.json()["run_id"])

    async def page(**query: Any) -> tuple[list[str], int]:
        before = (await redis.info("commandstats"))["cmdstat_hmget"]["calls"]
        told = (await measured.http.get("/threads/t/runs", params=query)).json()
        after = (await redis.info("commandstats"))["cmdstat_hmget"]["calls"]
        return [run["run_id"] for run in told], after - before

    one, two, every = await page(limit=1), await page(limit=1, offset=1), await page()
    assert (one[0], two[0], every[0]) == (ids[:1], ids[1:2], ids)
    assert one[1] < two[1] < every[1]
    assert await page(limit=2, status="pending") == ([ids[0]], every[1])


def resident(pid: int) -> int:
    """Return the memory that a process uses now, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
async def test_fault_62_documents_that_nobody_takes_hold_no_more_than_their_bound(redis_url: str) -> None:
    most, size = 24 * 1024 * 1024, 4 * 1024 * 1024
    environment = {"REDIS_URL": redis_url, "OPENAI_BASE_URL": "http://127.0.0.1:1"}
    environment["GATEWAY_MAX_DOCUMENTS_BYTES"] = str(most)
    async with GatewayProcess("web", environment) as web, httpx.AsyncClient(base_url=web.url) as http:
        connection = Connection(redis_url, name="test")
        measured = Measured(web, http, Log(connection), [])
        run = await long_run(measured, size, 64)
        assert (await http.get(f"/stream/{run}")).status_code == 200
        before = resident(web.pid)
        url = httpx.URL(web.url)
        unread = [socket.create_connection((url.host, url.port)) for _ in range(24)]
        for one in unread:
            one.sendall(
                f"GET /stream/{run} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n".encode()
            )
        answers = await asyncio.gather(*(asyncio.to_thread(one.recv, 12) for one in unread))
        grown = resident(web.pid) - before
        for one in unread:
            one.close()
        await connection.close()
    assert {answer[9:12] for answer in answers} <= {b"200", b"429"}
    assert grown < 2 * most, f"{grown / 1e6:.0f} MB for documents of {24 * size / 1e6:.0f} MB"
