"""One subscriber connection for a process, many local readers.

The first reader of a stream subscribes, the last one leaves. Publish only wakes: whatever the hub cannot
vouch for (a lost connection, a bound that is passed, a silent stream whose head has moved) makes the
reader doubt, and a reader in doubt reads the log.
Invariant: `join` returns after the server's acknowledgement, so what is published after a log read that
follows it cannot be missed, other than by a lost publish, which the look finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections import deque
from collections.abc import AsyncIterator

from redis.asyncio.connection import AbstractConnection

from gateway.connection import BROKEN, TIMEOUT_SECONDS, connection_to
from gateway.errors import StoreUnavailable
from gateway.log import Log
from gateway.subscription import Block, Subscription

PULSE_SECONDS = 0.5
SILENT_SECONDS = 1.0  # after this silence a stream's head is looked at
LIVELY_SECONDS = 10.0  # this long after the last event it stays a look a second
LONGEST_LOOK_SECONDS = 14.0
STALLED_SECONDS = 60.0
STALLED = "the reader takes nothing more"
_BACKOFF_SECONDS = (0.05, 2.0)
_DEAF_SECONDS = 10.0  # a connection that does not even answer PING is dead
_log = logging.getLogger("holdfast.hub")


class Feed:
    """One followed stream in this process."""

    __slots__ = ("acknowledged", "heard_at", "id", "looked_at", "readers")

    def __init__(self, stream_id: str, now: float) -> None:
        self.id = stream_id
        self.acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard_at = self.looked_at = now
        self.readers: set[Subscription] = set()

    def look_at(self, now: float) -> float:
        """When to look: after 1 s of silence, each second while events came lately, then ever more rarely."""
        silent = now - self.heard_at
        wait = SILENT_SECONDS if silent <= LIVELY_SECONDS else min(silent / 5, LONGEST_LOOK_SECONDS)
        return max(self.heard_at, self.looked_at) + wait


class Hub:
    """Local fan-out. `async with hub.subscribe(id) as subscription` is a reader's lifetime."""

    def __init__(self, url: str, log: Log, *, heartbeat: float, reader_bytes: int) -> None:
        self._url = url
        self._log = log
        self._heartbeat = heartbeat
        self._reader_bytes = reader_bytes
        self._feeds: dict[bytes, Feed] = {}
        self._outbox: list[tuple[str, Feed | None]] = []
        self._written = asyncio.Event()
        self._wanted = asyncio.Event()
        self._unacknowledged: deque[Feed] = deque()  # in the order in which SUBSCRIBEs were sent
        self._heard_at = math.inf  # when the connection last said anything; inf while there is none
        self._link: AbstractConnection | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @property
    def readers(self) -> int:
        """How many readers are attached here."""
        return sum(len(feed.readers) for feed in self._feeds.values())

    def open(self) -> None:
        """Start the two tasks of the process: the connection's, and the shared pulse."""
        for work, name in ((self._listen(), "hub-listen"), (self._pulse(), "hub-pulse")):
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(self._died)
            self._tasks.append(task)

    async def close(self) -> None:
        """Stop; readers that are still attached end."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def subscribe(self, stream_id: str) -> AsyncIterator[Subscription]:
        """Join a stream, acknowledged by the server. Raises StoreUnavailable after 5 s without."""
        if self._closed:
            raise StoreUnavailable
        reader = Subscription(self._reader_bytes, sent_at=_now())
        feed = self._join(stream_id, reader)
        try:
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await asyncio.shield(feed.acknowledged)
            except TimeoutError as error:
                raise StoreUnavailable from error
            yield reader
        finally:
            self._leave(feed, reader)

    def _join(self, stream_id: str, reader: Subscription) -> Feed:
        channel = _channel(stream_id)
        feed = self._feeds.get(channel)
        if feed is None:
            feed = self._feeds[channel] = Feed(stream_id, _now())
            self._send("SUBSCRIBE", feed)
        feed.readers.add(reader)
        self._wanted.set()
        return feed

    def _leave(self, feed: Feed, reader: Subscription) -> None:
        feed.readers.discard(reader)
        channel = _channel(feed.id)
        if not feed.readers and self._feeds.get(channel) is feed:
            del self._feeds[channel]
            self._send("UNSUBSCRIBE", feed)

    def _send(self, command: str, feed: Feed | None = None) -> None:
        if self._link is not None:  # a new connection subscribes to all feeds itself
            self._outbox.append((command, feed))
            self._written.set()

    async def _listen(self) -> None:
        """Keep one connection while anybody follows; back off, with jitter, while the server is out of reach."""
        backoff = _BACKOFF_SECONDS[0]
        while True:
            if not self._feeds:
                self._wanted.clear()
            await self._wanted.wait()
            link = connection_to(self._url, name="holdfast-hub")
            try:
                await link.connect()
                backoff = _BACKOFF_SECONDS[0]
                await self._serve(link)
            except BROKEN as error:
                _log.warning("subscriber connection lost: %s", type(error).__name__)
            finally:
                self._link, self._heard_at = None, math.inf
                await link.disconnect(nowait=True)
            self._doubt_all()
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, _BACKOFF_SECONDS[1])

    async def _serve(self, link: AbstractConnection) -> None:
        self._link, self._heard_at = link, _now()
        self._unacknowledged.clear()
        self._outbox = [("SUBSCRIBE", feed) for feed in self._feeds.values()]
        self._written.set()
        writer = asyncio.create_task(self._write(link), name="hub-write")
        try:
            while True:
                kind, channel, payload = await link.read_response(
                    disable_decoding=True, timeout=math.inf, disconnect_on_error=False
                )
                self._heard_at = _now()
                if kind == b"message":
                    self._dispatch(channel, payload)
                elif kind == b"subscribe":
                    self._acknowledge()
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, link: AbstractConnection) -> None:
        try:
            while True:
                await self._written.wait()
                self._written.clear()
                outbox, self._outbox = self._outbox, []
                packed: list[bytes] = []
                for command, feed in outbox:
                    packed += link.pack_command(command, *([_channel(feed.id)] if feed else []))
                    if feed and command == "SUBSCRIBE":
                        self._unacknowledged.append(feed)
                await link.send_packed_command(packed, check_health=False)
        except BROKEN:
            await link.disconnect(nowait=True)  # the reading side ends with it, and says so

    def _dispatch(self, channel: bytes, payload: bytes) -> None:
        feed = self._feeds.get(channel)
        if feed is None:
            return  # the last reader has just left
        block = Block.parse(payload)
        feed.heard_at = _now()
        for reader in feed.readers:
            reader.offer(block)

    def _acknowledge(self) -> None:
        feed = self._unacknowledged.popleft()
        if not feed.acknowledged.done():
            feed.acknowledged.set_result(None)
        for reader in feed.readers:  # whatever was published before the acknowledgement is in the log only
            reader.lose()

    def _doubt_all(self) -> None:
        for feed in self._feeds.values():
            if feed.acknowledged.done():
                feed.acknowledged = asyncio.get_running_loop().create_future()
            for reader in feed.readers:
                reader.lose()

    async def _pulse(self) -> None:
        """Every half second, for all readers: heartbeats, the look, and a sign of life of the connection."""
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            now = _now()
            for feed in self._feeds.values():
                for reader in feed.readers:
                    self._beat(reader, now)
            if now - self._heard_at > _DEAF_SECONDS and self._link is not None:
                await self._link.disconnect(nowait=True)
            elif now - self._heard_at > _DEAF_SECONDS / 2:
                self._send("PING")
            with contextlib.suppress(StoreUnavailable):  # the next look is the retry; readers notice by themselves
                await self._look([feed for feed in self._feeds.values() if now >= feed.look_at(now)])

    def _beat(self, reader: Subscription, now: float) -> None:
        silent = now - reader.sent_at
        if reader.busy is not None:
            if silent > STALLED_SECONDS:  # its socket takes nothing more: cut it, it can come back
                reader.busy.cancel(STALLED)
        elif silent > self._heartbeat - 2 * PULSE_SECONDS:
            reader.sent_at = now
            reader.beat = True
            reader.wake()

    async def _look(self, feeds: list[Feed]) -> None:
        """What a lost publish hid: a stream's head that is not what its readers have or are about to get."""
        if not feeds:
            return
        heads = await self._log.heads([feed.id for feed in feeds])
        for feed, head in zip(feeds, heads, strict=True):
            feed.looked_at = _now()
            for reader in feed.readers:
                if reader.head != head and not reader.doubt:
                    reader.lose()

    def _died(self, task: asyncio.Task[None]) -> None:
        """Without its two tasks the hub serves nobody: wake those who wait, so that they end and come back."""
        self._closed = True
        for feed in self._feeds.values():
            if not feed.acknowledged.done():
                feed.acknowledged.set_exception(StoreUnavailable())
                feed.acknowledged.exception()  # somebody may be waiting, but need not be
            for reader in feed.readers:
                reader.end()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s died", task.get_name(), exc_info=error)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _channel(stream_id: str) -> bytes:
    return f"live:{stream_id}".encode()
