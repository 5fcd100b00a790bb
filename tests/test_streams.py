"""Streams in process: the rules and the errors of HTTP, without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import holdfast_gateway.streams
from gateway.protocol import new_stream_id
from gateway.relay.follow import Relay
from holdfast_gateway import Event, GatewayError, Refused, Streams, Unreachable
from holdfast_gateway.asgi import Holdfast, create_app
from tests.hosts import until
from tests.support.model_server import ModelServer, script
from tests.test_mounted import settings_of


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


@pytest.fixture
async def holdfast(redis_url: str, model: ModelServer) -> AsyncIterator[Holdfast]:
    """A gateway that runs the jobs, as a worker elsewhere would."""
    made = create_app(settings_of(redis_url, model))
    async with made.lifespan():
        yield made


@pytest.fixture
async def streams(
    redis_url: str, holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Streams]:
    """Those of another process, by its environment."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    async with Streams.from_env() as made:
        yield made


async def collected(streams: Streams, stream_id: str, **given: str) -> list[Event]:
    return [event async for event in streams.follow(stream_id, **given)]


async def test_one_is_started_followed_and_resumed(streams: Streams) -> None:
    stream_id = await streams.start(user=script(["a", "b"]), metadata={"n": 1}, owner="key:alice")
    events = await collected(streams, stream_id, owner="key:alice")
    assert [event.type for event in events] == ["start", "stage", "message", "message", "stage", "done"]
    assert "".join(event.text for event in events) == "ab"
    assert await collected(streams, stream_id, owner="key:alice", after=events[3].id) == events[4:]
    assert await collected(streams, stream_id, owner="key:alice", after=events[-1].id) == []
    told = await streams.status(stream_id, owner="key:alice")
    assert (told["status"], told["text"], told["metadata"]) == ("done", "ab", {"n": 1})


async def test_the_same_key_of_the_same_owner_is_the_same_stream(streams: Streams) -> None:
    first = await streams.start(user="x", owner="key:alice", key="2026-11-29")
    assert await streams.start(user="x", owner="key:alice", key="2026-11-29") == first
    assert await streams.start(user="x", owner="key:bob", key="2026-11-29") != first
    with pytest.raises(Refused) as caught:
        await streams.start(user="y", owner="key:alice", key="2026-11-29")
    assert (caught.value.status, caught.value.code) == (422, "idempotency_key_reused")


async def test_one_that_runs_is_cancelled(streams: Streams, model: ModelServer) -> None:
    stream_id = await streams.start(user=script(["a", "b"], gate="cancelled", gate_at=1))
    await until(lambda: streams.status(stream_id), lambda told: told["text"] == "a")
    assert (await streams.cancel(stream_id))["status"] == "cancelled"
    assert (await collected(streams, stream_id))[-1].type == "cancelled"
    model.open_gate("cancelled")


@pytest.mark.parametrize(
    ("given", "status", "code", "field"),
    [
        ({}, 422, "invalid", "user, messages, input"),
        ({"user": "x", "input": None}, 422, "invalid", "user, messages, input"),
        ({"user": ""}, 422, "invalid", "user"),
        ({"user": "x", "chain": "none"}, 422, "invalid", "chain"),
        ({"user": "x", "metadata": {"x": "y" * 4096}}, 422, "invalid", "metadata"),
        ({"input": {1: 2}}, 422, "invalid", "input"),
        ({"input": object()}, 422, "invalid", "body"),
        ({"input": 1}, 422, "invalid", "input"),
        ({"user": "x", "key": "x" * 256}, 422, "invalid", "key"),
        ({"user": "x", "key": "ü"}, 422, "invalid", "key"),
        ({"user": "x" * 300_000}, 413, "too_large", None),
    ],
)
async def test_what_breaks_a_rule_is_refused_as_over_http(
    streams: Streams, given: dict[str, object], status: int, code: str, field: str | None
) -> None:
    with pytest.raises(Refused) as caught:
        await streams.start(**given)  # type: ignore[arg-type]
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.problem.get("field") == field


async def test_quotas_hold_and_say_when_to_come_back(redis_url: str, model: ModelServer) -> None:
    settings = settings_of(redis_url, model, max_owner_streams=1)
    streams = create_app(settings, worker=False).streams
    await streams.start(user="x", owner="key:alice")
    with pytest.raises(Refused) as caught:
        await streams.start(user="x", owner="key:alice")
    assert (caught.value.status, caught.value.code) == (429, "over_quota")
    assert caught.value.retry_after
    await streams.close()


async def test_anothers_stream_and_none_are_the_same_refusal(streams: Streams) -> None:
    theirs = await streams.start(user="x", owner="key:alice")
    for stream_id in (theirs, new_stream_id(), "no id"):
        for ask in (streams.status, streams.cancel):
            with pytest.raises(Refused, match="no such stream"):
                await ask(stream_id, owner="key:bob")
        with pytest.raises(Refused, match="no such stream"):
            await collected(streams, stream_id, owner="key:bob")
    with pytest.raises(Refused) as caught:
        await collected(streams, theirs, owner="key:alice", after="nonsense")
    assert (caught.value.status, caught.value.code) == (400, "malformed")


async def test_a_store_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setattr(holdfast_gateway.streams, "FOLLOW_PATIENCE_SECONDS", 0.0)
    async with Streams.from_env() as streams:
        for asked in (
            streams.start(user="x"),
            streams.status(new_stream_id()),
            streams.cancel(new_stream_id()),
            collected(streams, new_stream_id()),
        ):
            with pytest.raises(Unreachable) as caught:
                await asked
            assert isinstance(caught.value, GatewayError)
    monkeypatch.delenv("REDIS_URL")
    with pytest.raises(ValueError, match="REDIS_URL must be set"):
        Streams.from_env()


async def test_a_follower_has_no_age_and_is_told_of_the_gateways_end(
    redis_url: str, model: ModelServer, holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[str] = []
    join = Relay.join

    def counted(relay: Relay, stream_id: str, *given: Any) -> Any:
        joined.append(stream_id)
        return join(relay, stream_id, *given)

    monkeypatch.setattr(Relay, "join", counted)

    async def times() -> int:
        return len(joined)

    young = create_app(settings_of(redis_url, model, stream_max_age=0.001), worker=False)
    stream_id = await young.streams.start(user=script(["a", "b"], pace=0.05))
    events = await collected(young.streams, stream_id)
    assert [event.type for event in events] == ["start", "stage", "message", "message", "stage", "done"]
    assert joined == [stream_id]
    async with young.lifespan():
        waiting = await young.streams.start(user=script(["a"], gate="never"))
        following = asyncio.create_task(collected(young.streams, waiting))
        await until(times, lambda count: count == 2)
    with pytest.raises(Unreachable, match="being closed"):
        await following
    await holdfast.streams.cancel(waiting)
    model.open_gate("never")
