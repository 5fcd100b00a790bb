"""The queue's seam, and the Redis one: a stream with a consumer group.

A message holds the stream's id, the release's version and the trace context, nothing else. Delivery is at
least once; a claim decides. `held` deliveries are left pending until their holder's lease ends.
"""

from __future__ import annotations

import base64
import logging
from dataclasses import dataclass, field
from typing import Protocol

import orjson
from redis.exceptions import ResponseError

from gateway import sse
from gateway.connection import Connection
from gateway.errors import QueueUnavailable, StoreUnavailable
from gateway.protocol import VERSION

_log = logging.getLogger("holdfast.queue")
BLOCK_MS = 1000
RECLAIM_COUNT = 64
RECLAIM_CALLS = 8  # each looks at ten pending entries for each that it may take
GROUP = "workers"
_FIRST = b"0-0"
# The group is not there: never made, or its store was emptied, perhaps under a read that waited.
_NO_GROUP = ("NOGROUP", "UNBLOCKED")


@dataclass(frozen=True, slots=True)
class Message:
    """What the queue carries."""

    id: str
    traceparent: str = ""
    version: int = VERSION
    body: bytes = field(default=b"", repr=False, compare=False)  # as it came; another release's may say more

    def encode(self) -> bytes:
        """One line of JSON."""
        return sse.dumps({"v": self.version, "id": self.id, "traceparent": self.traceparent})

    @classmethod
    def decode(cls, raw: bytes) -> Message:
        """Read a message, plain or in base64. Raises ValueError for anything else."""
        try:
            value = orjson.loads(raw)  # its ValueError covers a nesting too deep as well
        except ValueError:
            raw = base64.b64decode(raw, validate=True)
            value = orjson.loads(raw)
        match value:
            case {"v": int(version), "id": str(stream_id)} if version is not True and version is not False:
                trace = value.get("traceparent")
                return cls(stream_id, trace if isinstance(trace, str) else "", version, raw)
        raise ValueError("not a job message")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message in a worker's hands, and the receipt that settles it."""

    body: bytes
    receipt: str


class Sender(Protocol):
    """Takes jobs."""

    async def enqueue(self, message: Message) -> None:
        """Returns when the queue has acknowledged it. Raises QueueUnavailable."""


class JobQueue(Sender, Protocol):
    """Carries jobs from the web to the workers, at least once."""

    async def enqueue(self, message: Message, delay_ms: int = 0) -> None:
        """Returns when the queue has acknowledged it. Raises QueueUnavailable.

        The delay is a wish: a queue that cannot hide a message delivers it at once, and the claim decides.
        """

    async def receive(self, count: int) -> list[Delivery]:
        """Up to `count` deliveries; waits a bounded time for the first. Raises QueueUnavailable."""

    async def done(self, delivery: Delivery) -> None:
        """This delivery is settled and not delivered again. Raises QueueUnavailable."""

    async def later(self, delivery: Delivery, delay_ms: int) -> None:
        """Deliver it again, to anybody, after the delay, or sooner if it is long. Raises QueueUnavailable."""

    async def depth(self) -> int:
        """How many jobs are queued or running. Raises QueueUnavailable."""

    async def close(self) -> None:
        """Let go of what belongs to the queue alone."""


class RedisQueue:
    """Redis streams. A pending entry is taken over when it has been idle for `lease_ms`.

    `sender` may be shared; `receiver` is one of its own, because a read blocks it for up to a second.
    """

    def __init__(
        self,
        sender: Connection,
        receiver: Connection,
        *,
        name: str,
        consumer: str,
        lease_ms: int,
        keep_ms: int,
    ) -> None:
        self._sender = sender
        self._receiver = receiver
        self._key = "{" + name + "}:queue"
        self._consumer = consumer
        self._lease_ms = lease_ms
        self._keep_ms = keep_ms
        self._cursor: bytes = _FIRST  # where the next look at pending entries begins

    async def enqueue(self, message: Message, delay_ms: int = 0) -> None:
        """Add it, at once: Redis streams know no delay. One sent twice does nothing the second time."""
        commands: list[tuple[str | bytes | int, ...]] = [
            ("XADD", self._key, "*", "job", message.encode()),
            ("PEXPIRE", self._key, self._keep_ms),
        ]
        try:
            await self._sender.call_all(commands)
        except (StoreUnavailable, ResponseError) as error:  # a refusal is as good as an absence
            raise QueueUnavailable from error

    async def receive(self, count: int) -> list[Delivery]:
        """What nobody holds any more first, then what is new."""
        try:
            return await self._receive(count)
        except StoreUnavailable as error:
            raise QueueUnavailable from error
        except ResponseError as error:
            if not str(error).startswith(_NO_GROUP):
                raise
        try:
            await self._make_group()
        except StoreUnavailable as error:
            raise QueueUnavailable from error
        return []

    async def done(self, delivery: Delivery) -> None:
        """Acknowledge and delete, so that the stream's length is the queue's depth."""
        commands: list[tuple[str | bytes | int, ...]] = [
            ("XACK", self._key, GROUP, delivery.receipt),
            ("XDEL", self._key, delivery.receipt),
        ]
        try:
            await self._sender.call_all(commands)
        except StoreUnavailable as error:
            raise QueueUnavailable from error

    async def later(self, delivery: Delivery, delay_ms: int) -> None:
        """Leave it pending, and set its idle time so that it is due when the delay is over."""
        idle = max(0, self._lease_ms - delay_ms)
        command = ("XCLAIM", self._key, GROUP, self._consumer, 0, delivery.receipt)
        try:
            await self._sender.call(*command, "IDLE", idle, "JUSTID")
        except StoreUnavailable as error:
            raise QueueUnavailable from error
        except ResponseError as error:
            if not str(error).startswith(_NO_GROUP):
                raise  # else the store was emptied: there is nothing left to deliver

    async def close(self) -> None:
        """Leave the group, if nothing is pending here, and close the receiver; the sender is shared."""
        try:
            pending = await self._sender.call("XPENDING", self._key, GROUP, "-", "+", 1, self._consumer)
            if not pending:
                await self._sender.call("XGROUP", "DELCONSUMER", self._key, GROUP, self._consumer)
        except (StoreUnavailable, ResponseError):
            _log.debug("consumer %s stays in the group", self._consumer)
        await self._receiver.close()

    async def depth(self) -> int:
        """How many jobs are queued or running. Raises QueueUnavailable."""
        try:
            return int(await self._sender.call("XLEN", self._key))
        except StoreUnavailable as error:
            raise QueueUnavailable from error

    async def _receive(self, count: int) -> list[Delivery]:
        found = await self._reclaim(min(count, RECLAIM_COUNT))
        if found:
            return found
        fresh = await self._receiver.call(
            "XREADGROUP",
            "GROUP",
            GROUP,
            self._consumer,
            "COUNT",
            count,
            "BLOCK",
            BLOCK_MS,
            "STREAMS",
            self._key,
            ">",
        )
        await self._receiver.call("PEXPIRE", self._key, self._keep_ms)
        return _deliveries(fresh[0][1]) if fresh else []

    async def _reclaim(self, count: int) -> list[Delivery]:
        """Entries that are due; goes on where the last look ended, so held ones never hide those behind."""
        for _ in range(RECLAIM_CALLS):
            command = ("XAUTOCLAIM", self._key, GROUP, self._consumer, self._lease_ms, self._cursor)
            answer = await self._receiver.call(*command, "COUNT", count)
            self._cursor = answer[0]
            found = _deliveries(answer[1])
            if found or self._cursor == _FIRST:
                return found
        return []

    async def _make_group(self) -> None:
        """The group, and the stream when there is none; expires like every key, even if we die now."""
        commands: list[tuple[str | bytes | int, ...]] = [
            ("XGROUP", "CREATE", self._key, GROUP, "0", "MKSTREAM"),
            ("PEXPIRE", self._key, self._keep_ms),
        ]
        try:
            await self._receiver.call_all(commands)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise


def _deliveries(entries: list[list[object]]) -> list[Delivery]:
    """Entries of XREADGROUP or XAUTOCLAIM; a deleted entry has no fields and is passed over."""
    found = []
    for entry in entries:
        if entry and entry[1]:
            receipt, fields = entry
            assert isinstance(receipt, bytes)
            assert isinstance(fields, list)
            found.append(Delivery(fields[1], receipt.decode()))
    return found
