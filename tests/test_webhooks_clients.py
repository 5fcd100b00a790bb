"""Webhooks that our own clients and producers ask for, on both hosts: each tells of the end of its stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.client import Gateway, StreamFailed, SyncGateway
from gateway.producer.blocking import SyncProducer
from gateway.producer.producer import Producer
from gateway.settings import Settings
from gateway.streams.service import Gateway as Service
from holdfast_gateway import Refused, Streams
from tests.callers import ALICE, WEBHOOK_KEYS, Guarded, by_key
from tests.support.model_server import script
from tests.support.programs import node
from tests.support.receiver import Receiver

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as started:
        yield started


async def told(receiver: Receiver, target: str) -> tuple[str, str]:
    """The type of what this target was sent, and the stream's id."""
    await receiver.until(lambda: receiver.of(target))
    [one] = receiver.of(target)
    return one.document["type"], one.document["data"]["id"]


def settings_of(guarded: Guarded) -> Settings:
    """Another process on the host's store, with the same keys."""
    return Settings(redis_url=guarded.store_url, webhook_keys=" ".join(WEBHOOK_KEYS), webhook_loopback="yes")


async def test_the_python_client(guarded: Guarded, receiver: Receiver) -> None:
    hook = receiver.url
    async with Gateway(str(guarded.http.base_url), key=ALICE) as gateway:
        asked = {"url": hook("/first"), "events": ["failed"]}
        first = gateway.stream(user=script(["a"], status=400), webhook=asked)
        with pytest.raises(StreamFailed):
            await first.result()
        assert await told(receiver, "/first") == ("stream.failed", first.id)
        second = gateway.retry(first.id, webhook={"url": hook("/second")})
        none = gateway.retry(first.id, webhook=None)
        for stream in (none, second):
            with pytest.raises(StreamFailed):
                await stream.result()
    assert await told(receiver, "/second") == ("stream.failed", second.id)
    assert len(receiver.received) == 2
    with pytest.raises(Refused) as refused:
        await asyncio.to_thread(blocking, str(guarded.http.base_url))
    assert refused.value.problem["field"] == "webhook"


def blocking(url: str) -> None:
    with SyncGateway(url, key=ALICE) as gateway:
        gateway.stream(user="x", webhook={"url": "ftp://example.org"}).result()


async def test_the_javascript_client(guarded: Guarded, receiver: Receiver) -> None:
    async def first_of(**call: Any) -> str:
        url, options = str(guarded.http.base_url), json.dumps({"key": ALICE})
        lines = await node("ask.mjs", url, json.dumps(call), options)
        stream_id: str = lines[0]["event"]["data"]["id"]
        return stream_id

    failing = {"user": script(["a"], status=400), "webhook": {"url": receiver.url("/first")}}
    first = await first_of(stream=failing)
    assert await told(receiver, "/first") == ("stream.failed", first)
    second = await first_of(retry=[first, {"webhook": {"url": receiver.url("/second")}}])
    assert await told(receiver, "/second") == ("stream.failed", second)


async def test_streams_without_http(guarded: Guarded, receiver: Receiver) -> None:
    async with Streams(Service(settings_of(guarded), {"chat": ("chat",)})) as streams:
        events = {"events": ["cancelled", "done"]}
        made = await streams.start(
            user="x", owner="key:alice", webhook={"url": receiver.url("/streams"), **events}
        )
        await streams.cancel(made, owner="key:alice")
        with pytest.raises(Refused) as refused:
            await streams.start(user="x", owner="key:alice", webhook={"url": "nowhere"})
    assert (await told(receiver, "/streams"))[1] == made
    assert (refused.value.status, refused.value.problem["field"]) == (422, "webhook")


async def test_producers(guarded: Guarded, receiver: Receiver) -> None:
    settings = settings_of(guarded)
    async with Producer(settings) as producer:
        own: dict[str, Any] = {"chain": "own", "owner": "key:alice"}
        stream = await producer.open(
            **own, key=f"webhooks {guarded.name}", webhook={"url": receiver.url("/own")}
        )
        await stream.done()
        for wrong in ({"url": "http://10.0.0.1/"}, {"url": receiver.url("/own"), "when": "later"}):
            with pytest.raises(Refused) as refused:
                await producer.open(**own, webhook=wrong)
            assert refused.value.problem["field"].startswith("webhook")
        with pytest.raises(Refused) as reused:
            await producer.open(**own, key=f"webhooks {guarded.name}")
        assert reused.value.code == "idempotency_key_reused"
    assert await told(receiver, "/own") == ("stream.done", stream.id)

    def in_a_thread() -> str:
        with SyncProducer(settings) as blocked:
            made = blocked.open(chain="own", owner="key:alice", webhook={"url": receiver.url("/thread")})
            made.done()
            return made.id

    made = await asyncio.to_thread(in_a_thread)
    assert await told(receiver, "/thread") == ("stream.done", made)
    status = await guarded.http.get(f"/stream/{made}", headers=by_key(ALICE))
    assert status.status_code == 200
