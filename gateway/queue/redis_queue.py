"""The queue on Redis: a Redis stream with a consumer group. A delivery stays pending until it is settled."""

from __future__ import annotations

import logging
from contextlib import suppress

from redis.exceptions import ResponseError

from gateway.protocol.errors import QueueUnavailable, StoreUnavailable
from gateway.queue.job_queue import Delivery, Message
from gateway.redis.commands import Commands
from gateway.redis.script import Script

_log = logging.getLogger("holdfast.queue")
BLOCK_MS = 1000
RECLAIM_COUNT = 64
RECLAIM_CALLS = 8  # Redis scans up to ten pending entries per requested entry in each call
GROUP = "workers"
_FIRST = b"0-0"
# Errors that mean: the group does not exist. It was never created, or the store was emptied, perhaps during a
# blocking read. The last text comes from fakeredis.
_NO_GROUP = ("NOGROUP", "UNBLOCKED the stream key", "The XGROUP subcommand requires the key")


class RedisQueue:
    """A queue on a Redis stream. Another worker gets a pending entry that was idle for `lease_ms`.

    `sender` may be a shared connection. `receiver` must be a separate one, because a read blocks it for up to
    a second.
    """

    def __init__(
        self,
        sender: Commands,
        receiver: Commands,
        *,
        name: str,
        consumer: str,
        lease_ms: int,
        keep_ms: int,
    ) -> None:
        self._sender = sender
        self._receiver = receiver
        self._key = "{" + name + "}:queue"
        self._starting = "{" + name + "}:starting"
        self._jobs = "{" + name + "}:jobs"
        self._reserve = Script("reserve", shared=False)
        self._enqueue = Script("enqueue", shared=False)
        self._consumer = consumer
        self._lease_ms = lease_ms
        self._keep_ms = keep_ms
        self._cursor: bytes = _FIRST  # where the next scan of pending entries begins

    async def reserve(self, stream_id: str, most: int, others: int) -> bool:
        """Reserve a place. The limit is exact for all processes.

        One script counts the jobs that are queued, running or about to be enqueued.
        """
        keys, args = [self._jobs, self._starting], (stream_id, most, others, self._keep_ms)
        try:
            answer = await self._reserve(self._sender, keys, *args)
        except (StoreUnavailable, ResponseError) as error:
            raise QueueUnavailable from error
        return bool(answer[0] == "ok")

    async def enqueue(self, message: Message, delay_ms: int = 0) -> None:
        """Add the message at once, because Redis streams have no delay.

        If it is sent twice, the second call does nothing.
        """
        keys, args = [self._key, self._jobs, self._starting], (message.id, message.encode(), self._keep_ms)
        try:
            await self._enqueue(self._sender, keys, *args)
        # a refusal is handled like a store that cannot be reached
        except (StoreUnavailable, ResponseError) as error:
            raise QueueUnavailable from error

    async def receive(self, count: int) -> list[Delivery]:
        """Return deliveries whose lease is over first. If there are none, return new ones."""
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
        """Acknowledge and delete the entry. So the length of the Redis stream is the depth of the queue."""
        commands: list[tuple[str | bytes | int, ...]] = [
            ("XACK", self._key, GROUP, delivery.receipt),
            ("XDEL", self._key, delivery.receipt),
        ]
        with suppress(ValueError):  # an invalid message has no place in the limit on jobs
            commands.append(("ZREM", self._jobs, Message.decode(delivery.body).id))
        try:
            await self._sender.call_all(commands)
        except StoreUnavailable as error:
            raise QueueUnavailable from error

    async def forget(self, stream_id: str) -> None:
        """Free the place. The entry stays until a worker receives it and finds nothing to run."""
        try:
            await self._sender.call_all([("ZREM", key, stream_id) for key in (self._jobs, self._starting)])
        except StoreUnavailable as error:
            raise QueueUnavailable from error

    async def later(self, delivery: Delivery, delay_ms: int) -> None:
        """Leave the entry pending. Set its idle time so that it is due when the delay is over."""
        idle = max(0, self._lease_ms - delay_ms)
        command = ("XCLAIM", self._key, GROUP, self._consumer, 0, delivery.receipt)
        try:
            await self._sender.call(*command, "IDLE", idle, "JUSTID")
        except StoreUnavailable as error:
            raise QueueUnavailable from error
        except ResponseError as error:
            if not str(error).startswith(_NO_GROUP):
                raise  # not raised if the store was emptied: then there is nothing to deliver

    def leave(self, delivery: Delivery) -> None:
        """Do nothing: the entry is pending, and is due after it has been idle for `lease_ms`."""

    async def close(self) -> None:
        """Close the receiver; the sender is shared.

        Leave the group if this consumer has no pending entries.
        """
        try:
            pending = await self._sender.call("XPENDING", self._key, GROUP, "-", "+", 1, self._consumer)
            if not pending:
                await self._sender.call("XGROUP", "DELCONSUMER", self._key, GROUP, self._consumer)
        except (StoreUnavailable, ResponseError):
            _log.debug("consumer %s stays in the group", self._consumer)
        await self._receiver.close()

    async def depth(self) -> int:
        """Return how many jobs are queued or running. Raises QueueUnavailable."""
        try:
            return int(await self._sender.call("XLEN", self._key))
        except StoreUnavailable as error:
            raise QueueUnavailable from error

    async def _receive(self, count: int) -> list[Delivery]:
        found = await self._reclaim(min(count, RECLAIM_COUNT))
        if found:
            return found
        names = ("XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", count, "BLOCK", BLOCK_MS)
        expire = ("PEXPIRE", self._key, self._keep_ms)
        fresh, _ = await self._receiver.call_all([(*names, "STREAMS", self._key, ">"), expire])
        return _deliveries(fresh[0][1]) if fresh else []

    async def _reclaim(self, count: int) -> list[Delivery]:
        """Return pending entries that are due.

        The scan continues where the last one ended. So entries that are not due cannot hide the entries
        behind them.
        """
        for _ in range(RECLAIM_CALLS):
            command = ("XAUTOCLAIM", self._key, GROUP, self._consumer, self._lease_ms, self._cursor)
            answer = await self._receiver.call(*command, "COUNT", count)
            self._cursor = answer[0]
            found = _deliveries(answer[1])
            if found or self._cursor == _FIRST:
                return found
        return []

    async def _make_group(self) -> None:
        """Create the group, and the Redis stream if it does not exist.

        The key gets its expiry in the same round trip, so it expires even if this process dies now.
        """
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
    """Convert entries of XREADGROUP or XAUTOCLAIM. A deleted entry has no fields and is skipped."""
    found = []
    for entry in entries:
        if entry and entry[1]:
            receipt, fields = entry
            assert isinstance(receipt, bytes)
            assert isinstance(fields, list)
            found.append(Delivery(fields[1], receipt.decode()))
    return found
