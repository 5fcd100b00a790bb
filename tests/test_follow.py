"""GET /stream/{id}, on both hosts (`docs/protocol.md`, GET /stream/{id} and The status document)."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime

import pytest
import pytest_asyncio

from gateway.protocol.fold import Fold
from gateway.protocol.sse import LOG_LOST, Decoder
from gateway.store.log import Log
from tests.hosts import EVENTS, HEARTBEAT_SECONDS, JSON, NOBODY, Host, Wire, until, uvicorn_host
from tests.support.model_server import ModelServer
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-store, no-transform",
    "x-accel-buffering": "no",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
ALSO_THERE = {"date", "server", "transfer-encoding", "connection"}  # The HTTP server sets these headers.
# Texts that a reader could take for the end of a line or of a frame, or for a field.
HOSTILE = ["\0", "a\rb", "a\nb", "a\r\nb", "\n\n", "data: x\n\n", "\n\nid: 7\nevent: done\n", "\u2028\u2029"]
HOSTILE += ["\ud800", "\udfff\ud800", "\U0001f600", ":", "\ufeff", "\u0085\x0b\x0c", '"\\', " ", "retry: 1"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def short_lived(model: ModelServer) -> AsyncIterator[Host]:
    """Run a host that keeps an ended stream for one second, and its id for one more hour."""
    keeps = {"GATEWAY_RETENTION_SECONDS": "1", "GATEWAY_TOMBSTONE_SECONDS": "3600"}
    async with RedisServer() as redis, uvicorn_host(model, redis.url, **keeps) as host:
        yield host


def utf16(text: str) -> bytes:
    return text.encode("utf-16", "surrogatepass")


async def test_the_frames_are_the_log_byte_for_byte(host: Host) -> None:
    where, wire = await host.finished(["Hel", "lo", " \u00e4"])
    assert wire.frames == await host.log(where)
    assert wire.events == ["start", "stage", "message", "message", "message", "stage", "done"]
    texts = [json.loads(data) for data in wire.data[2:5]]
    assert texts[0] == {"deployment": "scripted", "delta_content": "Hel", "stage": "chat"}
    assert "".join(text["delta_content"] for text in texts) == "Hello \u00e4"
    start = json.loads(wire.data[0])
    assert list(start) == ["id", "chain", "stages", "created_at"]
    assert (start["id"], start["stages"]) == (where.rpartition("/")[2], ["chat"])
    stage = {"name": "chat", "run": 1, "index": 0, "count": 1}
    assert json.loads(wire.data[1]) == {**stage, "state": "started"}
    assert json.loads(wire.data[5]) == {**stage, "state": "finished"}
    done = json.loads(wire.data[6])
    assert list(done) == ["finish_reason", "usage", "attempts", "duration_ms"]
    assert done["usage"] == {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}


async def test_an_id_is_where_its_event_begins(host: Host) -> None:
    where, wire = await host.finished(["a", "\u00e4", "b"])
    log = await host.log(where)
    for event_id in wire.ids:
        assert log[int(event_id.partition("-")[0]) :].startswith(f"id: {event_id}\n".encode())


async def test_the_headers_are_exactly_these(host: Host) -> None:
    where, _ = await host.finished(["a"])
    headers = (await host.http.get(where)).headers
    assert {name: value for name, value in headers.items() if name not in ALSO_THERE} == HEADERS


async def test_every_cursor_gives_the_rest(host: Host) -> None:
    where, whole = await host.finished(["a", "b"])
    log = await host.log(where)
    for number, event_id in enumerate(whole.ids[:-1]):
        rest = log[int(whole.ids[number + 1].partition("-")[0]) :]
        assert (await host.read(where, event_id)).frames == rest
        by_query = await host.http.get(where, params={"last_event_id": event_id})
        assert Wire(by_query.content).frames == rest


async def test_the_header_wins_over_the_query(host: Host) -> None:
    where, whole = await host.finished(["a"])
    for query in (whole.ids[0], "0"):
        answer = await host.http.get(
            where, params={"last_event_id": query}, headers={"last-event-id": whole.ids[2]}
        )
        assert Wire(answer.content).ids == whole.ids[3:]


@pytest.mark.parametrize("nothing", [{}, {"last-event-id": "0"}, {"last-event-id": ""}])
async def test_without_a_cursor_all_is_told(host: Host, nothing: dict[str, str]) -> None:
    where, whole = await host.finished(["a"])
    assert Wire((await host.http.get(where, headers=nothing)).content).frames == whole.frames
    assert Wire((await host.http.get(where, params={"last_event_id": "0"})).content).frames == whole.frames


async def test_204_when_the_terminal_event_was_seen(host: Host) -> None:
    where, whole = await host.finished(["a"])
    for given in (
        {"headers": {"last-event-id": whole.ids[-1]}},
        {"params": {"last_event_id": whole.ids[-1]}},
    ):
        answer = await host.http.get(where, **given)  # type: ignore[arg-type]
        assert (answer.status_code, answer.content) == (204, b"")


async def test_fault_22_a_cursor_that_is_not_in_the_log_is_told_log_lost_and_everything(host: Host) -> None:
    where, whole = await host.finished(["a", "b"])
    _, other = await host.finished(["another stream, of other lengths"])
    offset, tag = whole.ids[2].split("-")
    wrong = [
        f"{int(offset) + 1}-{tag}",  # Inside an event.
        f"{offset}-{int(tag, 16) ^ 1:04x}",  # The tag of another claim.
        f"0{whole.ids[2]}",  # The same number in another spelling.
        f"{len(whole.frames)}-{tag}",  # At the end, where the next event would begin.
        f"9999999999-{tag}",  # After the end of the log.
        other.ids[-1],
        f"0-{int(whole.ids[0][2:], 16) ^ 1:04x}",
    ]
    for cursor in wrong:
        wire = await host.read(where, cursor)
        assert wire.frames == LOG_LOST + whole.frames, cursor
        assert wire.kinds[:2] == ["retry", "frame"]


async def test_fault_22_a_live_stream_ahead_of_its_log_is_not_waited_for(host: Host) -> None:
    where = await host.start(["a", "b"], gate=f"ahead-{host.name}", gate_at=1)
    headers = {**EVENTS, "last-event-id": "9999999999-abcd"}
    async with host.http.stream("GET", where, headers=headers) as answer:
        chunks = answer.aiter_bytes()
        raw = await anext(chunks)
        assert LOG_LOST in raw
        host.model.open_gate(f"ahead-{host.name}")
        raw += b"".join([chunk async for chunk in chunks])
    assert Wire(raw).frames == LOG_LOST + await host.log(where)


async def test_fault_20_whatever_the_text_holds_arrives_exactly_as_one_event(host: Host) -> None:
    where, wire = await host.finished(HOSTILE)
    texts = [json.loads(d) for d, kind in zip(wire.data, wire.events, strict=True) if kind == "message"]
    # The last character of a chunk may be the first half of a surrogate pair. The half waits for the next
    # chunk. If the next chunk begins with the second half, both are sent as one character. Otherwise the
    # first half is sent at the start of the next chunk.
    halves = HOSTILE.index("\ud800")
    told = [*HOSTILE[:halves], "\U000103ff", "\ud800\U0001f600", *HOSTILE[halves + 3 :]]
    assert [text["delta_content"] for text in texts] == told
    seen = Decoder().feed((await host.http.get(where)).content)
    assert [message.type for message in seen] == wire.events
    text = (await host.status(where))["text"]
    assert utf16(text) == utf16("".join(HOSTILE))  # In JSON, two halves next to each other are one character.


@pytest.mark.slow
async def test_beside_frames_only_retry_and_heartbeats(host: Host) -> None:
    """The model blocks until two heartbeats have arrived. Each heartbeat is two bytes and is not an event."""
    gate = f"beat-{host.name}"
    where = await host.start(["a", "b"], gate=gate, gate_at=1)
    raw = b""
    limit = asyncio.timeout(6 * HEARTBEAT_SECONDS)
    async with limit, host.http.stream("GET", where, headers=EVENTS) as answer:
        async for chunk in answer.aiter_bytes():
            raw += chunk
            if raw.endswith(b"\n:\n:\n"):
                host.model.open_gate(gate)
    wire = Wire(raw)
    assert wire.kinds[:2] == ["retry", "frame"]
    assert wire.kinds.count("retry") == 1
    assert 2 <= wire.kinds.count("beat") <= 4
    assert wire.frames == await host.log(where)


@pytest.mark.slow
async def test_a_reader_with_nothing_to_read_gets_heartbeats_and_then_retry_before_its_first_frame(
    host: Host,
) -> None:
    gate = f"late-{host.name}"
    where = await host.start(["a"], gate=gate)
    document = await until(lambda: host.status(where), lambda seen: seen["stages"])
    headers = {**EVENTS, "last-event-id": document["last_event_id"]}
    async with host.http.stream("GET", where, headers=headers) as answer:
        chunks = answer.aiter_bytes()
        assert await anext(chunks) == b":\n"
        host.model.open_gate(gate)
        wire = Wire(b"".join([chunk async for chunk in chunks]))
    assert wire.kinds == ["retry", *["frame"] * 3]


@pytest.mark.slow
async def test_fault_30_past_its_retention_a_stream_is_410_and_then_404(short_lived: Host) -> None:
    where, wire = await short_lived.finished(["a"])
    gone = await until(lambda: short_lived.http.get(where), lambda answer: answer.status_code != 200)
    for headers in (JSON, EVENTS, {"last-event-id": wire.ids[-1]}):
        gone = await short_lived.http.get(where, headers=headers)
        assert (gone.status_code, gone.json()["code"]) == (410, "gone")
    assert (await short_lived.http.delete(where)).status_code == 410
    await short_lived.redis.pexpire(Log.keys(where.rpartition("/")[2])[0], 1)  # The hour is over now.
    gone = await until(lambda: short_lived.http.get(where), lambda answer: answer.status_code != 410)
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("place", [NOBODY, "x", "00", "%2e%2e", "%00", "\u0662" * 26, "a" * 9000])
@pytest.mark.parametrize("headers", [EVENTS, JSON])
async def test_an_unknown_id_is_404(host: Host, place: str, headers: dict[str, str]) -> None:
    answer = await host.http.get(f"/stream/{place}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_status_document_is_the_fold_of_the_events(host: Host) -> None:
    where, wire = await host.finished(["a", "b"])
    fold = Fold()
    for message in Decoder().feed(wire.frames):
        fold.feed(message.id, message.event())
    document = await host.status(where)
    times = [datetime.fromisoformat(document.pop(f"{name}_at")) for name in ("created", "started", "ended")]
    assert times == sorted(times)
    assert document == {
        "id": where.rpartition("/")[2],
        "status": "done",
        "chain": "chat",
        "stages": [{"name": "chat", "run": 1, "state": "finished", "text": "ab"}],
        "text": fold.text,
        "usage": fold.usage,
        "attempt": 1,
        "last_event_id": wire.ids[-1],
        "metadata": None,
        "error": None,
        "interrupts": [],
        "resumes": None,
        "resumed_by": None,
        "retries": None,
    }


async def test_a_late_joiner_follows_from_the_status_documents_last_event_id(host: Host) -> None:
    gate = f"join-{host.name}"
    where = await host.start(["a", "b", "c"], gate=gate, gate_at=2)
    document = await until(lambda: host.status(where), lambda seen: seen["text"] == "ab")
    assert (document["status"], document["ended_at"], document["usage"]) == ("running", None, None)
    host.model.open_gate(gate)
    wire = await host.read(where, document["last_event_id"])
    assert wire.events == ["message", "stage", "done"]
    assert json.loads(wire.data[0])["delta_content"] == "c"


async def test_a_failure_is_told_with_our_words_only(host: Host) -> None:
    where = await host.start(["secret canary"], status=401)
    wire = await host.read(where)
    error = json.loads(wire.data[-1])
    assert wire.events[-1] == "failed"
    assert list(error) == ["code", "message", "retryable"]
    assert b"canary" not in wire.raw
    document = await host.status(where)
    assert (document["status"], document["error"]) == ("failed", error)
