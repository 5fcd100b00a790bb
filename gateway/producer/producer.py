"""Streams that this process writes itself, without a job, a worker or HTTP.

    async with Producer.from_env() as producer:
        stream = await producer.open(chain="report", stages=("outline", "text"), key=job)

`gateway/producer/stream.py` shows how to write the stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from opentelemetry.trace import SpanKind

from gateway.observe import telemetry
from gateway.producer.hold import refused
from gateway.producer.stream import ProducerStream
from gateway.protocol import ANONYMOUS
from gateway.protocol.errors import HoldfastError, Invalid
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.mine import Mine
from gateway.store.outbox import Outbox
from gateway.store.own_connection import connected
from gateway.store.projector import Projector
from gateway.store.quota import Quota
from gateway.streams.opening import Opening
from gateway.streams.producer_asked import checked
from gateway.webhooks import asked as hooks
from gateway.webhooks.urls import Rules

MOST_KEY, MOST_OWNER = 255, 128  # most characters of each


class Producer:
    """Opens streams; use it with `async with`. Each event loop needs its own producer.

    A producer has its own connection to the store.
    """

    def __init__(self, settings: Settings, *, interrupts: bool = True) -> None:
        """`interrupts`: whether the task of a block is cancelled when its claim is over.

        Raises ValueError if REDIS_URL is not set.
        """
        if not settings.redis_url:
            raise ValueError("REDIS_URL is not set: a producer writes into the gateway's store")
        self._settings = settings
        self._interrupts = interrupts
        self._opening: Opening | None = None
        self._stack = AsyncExitStack()

    @classmethod
    def from_env(cls) -> Self:
        """Make a producer from the settings in the environment.

        These are REDIS_URL and related variables, GATEWAY_PRODUCER_GRACE_SECONDS, quotas and limits.
        """
        return cls(Settings.from_env())

    async def __aenter__(self) -> Self:
        redis = await self._stack.enter_async_context(connected(self._settings, "holdfast-producer"))
        quota, mine = Quota(redis, self._settings), Mine(redis, self._settings)
        projector = Projector(redis, self._settings)
        self._stack.push_async_callback(projector.close)
        outbox = Outbox(redis, self._settings)
        self._opening = Opening(self._settings, Log(redis, projector), quota, mine, outbox)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opening = None
        await self._stack.aclose()

    async def open(
        self,
        *,
        chain: str,
        stages: Sequence[str] = (),
        owner: str = "",
        key: str = "",
        metadata: Mapping[str, Any] | None = None,
        webhook: Mapping[str, Any] | None = None,
    ) -> ProducerStream:
        """Open a stream to write.

        With a `key` that this owner has used before, return the stream of that key. Its first write takes it
        over from the earlier producer. `chain` need not be registered. Without `stages` there is one stage
        with the name of the chain. `owner` is the name that the gateway's authentication gives to a caller.
        It is empty if callers are not authenticated. `webhook` is the field `webhook` of `POST /stream`:
        where to report the stream's end. Raises Refused or Unreachable. Refused has the status 422 if a rule
        is broken, or if the key came before with another chain, other stages, metadata or webhook. It has the
        status 429 if a quota is exceeded.
        """
        if self._opening is None:
            raise RuntimeError(
                "a producer opens streams within its own `async with`, or its application's lifespan"
            )
        try:
            asked = checked(chain, tuple(stages), None if metadata is None else dict(metadata))
            if webhook is not None:
                asked = replace(asked, webhook=hooks.parse(webhook, Rules.of(self._settings)))
            _bounded("owner", owner, MOST_OWNER)
            _bounded("key", key, MOST_KEY)
            with telemetry.span("open stream", SpanKind.PRODUCER) as span:
                trace = telemetry.traceparent_of(span)
                record = await self._opening.open(asked, owner=owner or ANONYMOUS, key=key, traceparent=trace)
        except HoldfastError as error:
            raise refused(error) from error
        return ProducerStream(self._opening, record, interrupts=self._interrupts)


def _bounded(field: str, value: str, most: int) -> None:
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise Invalid(field, f"must be at most {most} printable characters")
