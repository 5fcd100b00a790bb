"""Producers for tests: one in this process, and one in a separate process that can be killed after any
word."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.protocol import EventType
from gateway.protocol.fold import Fold
from gateway.protocol.sse import Decoder, Message
from gateway.settings import Settings
from gateway.store.log import Log
from holdfast_gateway import Producer
from tests.support import forked

REPOSITORY = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def producer(redis_url: str, **settings: Any) -> AsyncIterator[Producer]:
    """Open a producer in this process."""
    async with Producer(replace(Settings(redis_url=redis_url), **settings)) as made:
        yield made


@contextmanager
def raising(kind: type[BaseException]) -> Iterator[None]:
    """Check that a block of several statements raises this exception."""
    with pytest.raises(kind):
        yield


async def messages(redis: Redis, stream_id: str) -> list[Message]:
    """Return the whole log, decoded."""
    raw = await redis.get(Log.keys(stream_id)[1])
    assert isinstance(raw, bytes)
    return Decoder().feed(raw)


async def told(redis: Redis, stream_id: str) -> list[str]:
    """Return the log with one word for each event: the text itself, `+stage`, `-stage`, `id:state` of a call,
    or the type of the event."""
    words = []
    for message in await messages(redis, stream_id):
        event = message.event()
        match event.type:
            case EventType.MESSAGE:
                words.append(event.data["delta_content"])
            case EventType.STAGE:
                words.append(("+" if event.data["state"] == "started" else "-") + event.data["name"])
            case EventType.TOOL:
                words.append(f"{event.data['call_id']}:{event.data['state']}")
            case _:
                words.append(str(event.type))
    return words


async def fold(redis: Redis, stream_id: str) -> Fold:
    """Return the state that a reader of the whole log has."""
    whole = Fold()
    for message in await messages(redis, stream_id):
        assert whole.ended is None, "an event after the end"
        whole.feed(message.id, message.event())
    return whole


class Mortal:
    """`async with Mortal(redis_url, stages, die_after=n)`: writes each stage's words, dies by `kill -9`.

    It dies after `die_after` words, when it knows that the last word is stored.
    """

    def __init__(
        self, redis_url: str, key: str, stages: dict[str, list[str]], die_after: int, grace: str = "60"
    ) -> None:
        self._environment = {
            "REDIS_URL": redis_url,
            "PATH": os.environ["PATH"],
            "GATEWAY_PRODUCER_GRACE_SECONDS": grace,
        }
        self._given = json.dumps({"key": key, "stages": stages, "die_after": die_after})

    async def died(self) -> None:
        """Run the producer until it is dead."""
        with tempfile.TemporaryFile() as stderr:
            process = await forked.start(
                *("tests.support.mortal_producer", self._given),
                environment=self._environment,
                cwd=REPOSITORY,
                stderr=stderr,
            )
            code = await process.wait()
            if isinstance(process, forked.Forked):
                process.close()
            if isinstance(process, forked.Forked):
                process.close()
            stderr.seek(0)
            assert code in (-signal.SIGKILL, 128 + signal.SIGKILL), stderr.read().decode()
