"""DELETE /stream/{id}, on both hosts (`docs/protocol.md`, DELETE /stream/{id})."""

import asyncio

import pytest

from gateway.protocol import Cursor
from tests.hosts import EVENTS, NOBODY, Host, Wire, until, uvicorn_host
from tests.support.model_server import ModelServer
from tests.support.processes import GatewayProcess
from tests.support.queued import QUEUE
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

STOPS_WITHIN_SECONDS = 3 * 2  # Seconds. Three times the promised time.


async def begun(host: Host, name: str) -> str:
    """Start a stream that has sent `a` and whose model then blocks. Return the stream's location."""
    where = await host.start(["a", "b"], gate=f"{name}-{host.name}", gate_at=1)
    await until(lambda: host.status(where), lambda seen: seen["text"] == "a")
    return where


async def test_a_running_stream_ends_at_once_and_its_model_call_stops(host: Host) -> None:
    cut = host.model.cut_answers
    where = await begun(host, "run")
    answer = await host.http.delete(where)
    document = answer.json()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert (document["status"], document["text"], document["error"]) == ("cancelled", "a", None)
    assert document == await host.status(where)
    wire = await host.read(where)
    assert wire.events == ["start", "stage", "message", "cancelled"]
    assert wire.data[-1] == b"{}"
    assert document["last_event_id"] == wire.ids[-1]
    # The model sends nothing, so the worker learns of the cancellation at its lease renewal.
    async with asyncio.timeout(STOPS_WITHIN_SECONDS):
        await host.model.until(cut=cut + 1)
    assert await host.log(where) == wire.frames


async def test_readers_see_cancelled_as_the_terminal_event(host: Host) -> None:
    where = await begun(host, "watched")
    async with host.http.stream("GET", where, headers=EVENTS) as answer:
        chunks = answer.aiter_bytes()
        raw = await anext(chunks)
        await host.http.delete(where)
        wire = Wire(raw + b"".join([chunk async for chunk in chunks]))
    assert wire.frames == await host.log(where)
    assert wire.events[-1] == "cancelled"
    after = await host.http.get(where, headers={"last-event-id": wire.ids[-1]})
    assert after.status_code == 204


async def test_fault_18_cancelled_twice_and_at_once_is_cancelled_once(host: Host) -> None:
    where = await begun(host, "twice")
    answers = await asyncio.gather(*(host.http.delete(where) for _ in range(10)))
    answers.append(await host.http.delete(where))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert (await host.read(where)).events.count("cancelled") == 1


async def test_fault_18_an_ended_stream_stays_as_it_is(host: Host) -> None:
    where, wire = await host.finished(["a"])
    document = (await host.http.delete(where)).json()
    assert (document["status"], document["text"]) == ("done", "a")
    assert (await host.read(where)).frames == wire.frames


async def test_fault_18_racing_with_the_end_there_is_one_terminal_event(host: Host) -> None:
    for number in range(5):
        where = await begun(host, f"race-{number}")
        host.model.open_gate(f"race-{number}-{host.name}")
        document = (await host.http.delete(where)).json()
        wire = await host.read(where)
        assert len({"done", "cancelled"} & set(wire.events)) == 1
        assert wire.events[-1] == document["status"]
        assert [Cursor.parse(event_id).offset for event_id in wire.ids] == sorted(
            {Cursor.parse(event_id).offset for event_id in wire.ids}
        )


@pytest.mark.parametrize("place", [NOBODY, "x"])
async def test_an_unknown_id_is_404(host: Host, place: str) -> None:
    answer = await host.http.delete(f"/stream/{place}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.slow
async def test_fault_18_a_queued_job_never_starts(model: ModelServer) -> None:
    """The worker starts only after the cancellation. It takes the message and has nothing to do."""
    asked = len(model.requests)
    async with RedisServer() as redis, uvicorn_host(model, redis.url, "web") as host:
        where = await host.start(["never"])
        document = (await host.http.delete(where)).json()
        assert (document["status"], document["attempt"], document["started_at"]) == ("cancelled", 0, None)
        assert (await host.read(where)).events == ["start", "cancelled"]
        assert await host.redis.xlen(QUEUE) == 1
        async with GatewayProcess("worker", {**model.environment(), "REDIS_URL": redis.url}):
            await until(lambda: host.redis.xlen(QUEUE), lambda depth: depth == 0)
        assert (await host.read(where)).events == ["start", "cancelled"]
    assert len(model.requests) == asked
