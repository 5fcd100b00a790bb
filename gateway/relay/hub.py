"""Local fan-out: one subscriber connection for a process, many readers.

The first reader of a stream subscribes, the last one leaves. Publish only wakes: whatever the hub cannot
vouch for (a lost connection, a bound passed, a silent stream whose head has moved) sends a reader to the log.
Invariant: `subscribe` enters after the server's acknowledgement, so what is published after a read of the
log that follows is missed only by a lost publish.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from gateway.observe import telemetry
from gateway.protocol import ANONYMOUS
from gateway.protocol.errors import QueueUnavailable, StoreUnavailable, TooManyReaders, stack_of
from gateway.redis.connect import TIMEOUT_SECONDS, Where
from gateway.redis.pubsub import Subscriber
from gateway.relay.feed import Feed, channel_of
from gateway.relay.reader import Block, Subscription, merged
from gateway.store.log import Log

PULSE_SECONDS = 0.5
ORPHANS_AT_ONCE = 32
UNHEARD_LOOKS = 2  # in a row, of one feed: a single publish may be lost
STALLED_SECONDS = 60.0
STALLED = "the reader takes nothing more"
Orphaned = Callable[[str], Awaitable[object]]  # told of a stream whose lease, or whose wait, is over
_log = logging.getLogger("holdfast.hub")


class Hub:
    """`async with hub.subscribe(id) as subscription` is a reader's lifetime."""

    def __init__(
        self,
        where: Where,
        log: Log,
        orphaned: Orphaned,
        *,
        heartbeat: float,
        reader_bytes: int,
        most: int,
        most_of_stream: int,
        most_of_owner: int,
    ) -> None:
        self._log = log
        self._orphaned = orphaned
        self._heartbeat = heartbeat
        self._reader_bytes = reader_bytes
        self._most = most
        self._most_of_stream = most_of_stream
        self._most_of_owner = most_of_owner
        self.readers = 0  # how many are attached here
        self._by_owner: Counter[str] = Counter()  # of these, how many each owner's streams have
        self._feeds: dict[bytes, Feed] = {}
        self._fresh: list[Feed] = []  # that have heard something just now
        self.subscriber = Subscriber(where, self)
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    def open(self) -> None:
        """Start the tasks of the process: the connection's, the shared pulse, and the look."""
        works = (("listen", self.subscriber.run()), ("pulse", self._pulse()), ("look", self._looks()))
        for name, work in works:
            task = asyncio.create_task(work, name=f"hub-{name}")
            task.add_done_callback(self._died)
            self._tasks.append(task)

    async def close(self) -> None:
        """Stop; readers that are still attached end."""
        self._end_readers()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def subscribe(self, stream_id: str) -> AsyncIterator[Subscription]:
        """Join a stream, acknowledged by the server.

        Raises StoreUnavailable after 5 s without, or TooManyReaders.
        """
        feed, reader = self.join(stream_id)
        try:
            await self.acknowledged(feed)
            yield reader
        finally:
            self.leave(feed, reader)

    def join(self, stream_id: str, owner: str = "") -> tuple[Feed, Subscription]:
        """A new reader, to be given back by `leave`. Raises StoreUnavailable or TooManyReaders.

        `owner`: the stream's. Where nobody is asked who they are, all streams have the same, which then has
        no bound of its own.
        """
        if self._closed:
            raise StoreUnavailable
        owner = "" if owner == ANONYMOUS else owner
        self.check_room(stream_id, owner)
        reader = Subscription(self._reader_bytes, sent_at=_now(), owner=owner)
        if owner:
            self._by_owner[owner] += 1
        feed = self._feeds.get(channel_of(stream_id))
        if feed is None:
            feed = Feed(stream_id)
            self._feeds[feed.channel] = feed
            self.subscriber.subscribe(feed)
        feed.readers.add(reader)
        self.readers += 1
        return feed, reader

    async def acknowledged(self, feed: Feed) -> None:
        """Until the server has answered. Raises StoreUnavailable after 5 s."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await asyncio.shield(feed.acknowledged)
        except TimeoutError as error:
            raise StoreUnavailable from error

    def leave(self, feed: Feed, reader: Subscription) -> None:
        """The reader has ended."""
        feed.readers.discard(reader)
        self.readers -= 1
        if reader.owner:
            self._by_owner[reader.owner] -= 1
            if not self._by_owner[reader.owner]:
                del self._by_owner[reader.owner]
        if not feed.readers and self._feeds.get(feed.channel) is feed:
            del self._feeds[feed.channel]
            self.subscriber.unsubscribe(feed)

    def check_room(self, stream_id: str = "", owner: str = "") -> None:
        """Raises TooManyReaders when this process has as many as it may, in all, or of this stream or owner.

        An owner's streams have at most as many readers as there are places left, too: however few owners
        flood this process, others find a place.
        """
        left = self._most - self.readers
        feed = self._feeds.get(channel_of(stream_id))
        if left <= 0 or (feed and len(feed.readers) >= self._most_of_stream):
            raise TooManyReaders
        if owner and owner != ANONYMOUS and self._by_owner.get(owner, 0) >= min(self._most_of_owner, left):
            raise TooManyReaders

    def wanted(self) -> Iterable[Feed]:
        """The feeds with readers."""
        return self._feeds.values()

    def heard(self, channel: bytes, payload: bytes) -> None:
        """A block for all readers of a stream; parsed once, and delivered with what else has come."""
        feed = self._feeds.get(channel)
        if feed is None:
            return  # the last reader has just left
        feed.heard_at = _now()
        try:
            block = Block.parse(payload)
        except ValueError:  # not a publish of this release's append: it wakes, the log decides
            feed.doubt()
            return
        telemetry.relay_lag.heard(block.at_ms)
        if not feed.fresh:
            self._fresh.append(feed)
        feed.fresh.append(block)

    def deliver(self) -> None:
        """What has been heard together, a stream's in one piece as far as it fits."""
        now, fresh, self._fresh = _now(), self._fresh, []
        for feed in fresh:
            blocks, feed.fresh = feed.fresh, []
            for block in merged(blocks):
                for reader in tuple(feed.readers):
                    reader.offer(block, now)

    def lost(self) -> None:
        """The connection ended: acknowledgements are void, and every reader doubts."""
        for feed in self._feeds.values():
            if feed.acknowledged.done():
                feed.acknowledged = asyncio.get_running_loop().create_future()
            feed.doubt()

    async def _pulse(self) -> None:
        """Every half second, for all readers: heartbeats, and the connection's sign of life. Never waits."""
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            now = _now()
            for feed in self._feeds.values():
                for reader in feed.readers:
                    self._beat(reader, now)
            self.subscriber.pulse()

    async def _looks(self) -> None:
        """Apart from the pulse: a store that is slow to answer delays no heartbeat."""
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            now = _now()
            try:
                await self._look([feed for feed in self._feeds.values() if now >= feed.look_at(now)])
            except (StoreUnavailable, QueueUnavailable):
                continue  # the next look is the retry; readers notice a store out of reach by themselves
            except Exception as error:  # without this task nobody would notice a lost publish
                _log.error("a look failed:\n%s", stack_of(error))
            finally:
                self._judge()

    def _beat(self, reader: Subscription, now: float) -> None:
        silent = now - reader.sent_at
        if reader.busy is not None:
            if silent > STALLED_SECONDS:  # its socket takes nothing more: cut it, it can come back
                reader.busy.cancel(STALLED)
        elif silent > self._heartbeat - 2 * PULSE_SECONDS:
            reader.pulse(now)

    async def _look(self, feeds: list[Feed]) -> None:
        """What a lost publish hid: a stream's head that is not what a reader has or is about to get."""
        of = {feed.id: feed for feed in feeds}
        looks = [self._look_at([of[i] for i in ids]) for ids in await self._log.by_node(list(of))]
        for result in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(result, BaseException):  # when every node, of a cluster too, has had its look
                raise result

    def _judge(self) -> None:
        """Tell the subscriber when the log moves and nothing is heard of it, and when something is again."""
        since = self.subscriber.mistrusted_at
        if since is not None and any(feed.heard_at > since for feed in self._feeds.values()):
            self.subscriber.trust()
        if self._unheard():
            self.subscriber.mistrust(self._unheard)

    def _unheard(self) -> bool:
        return any(
            feed.unheard >= UNHEARD_LOOKS and feed.heard_at <= feed.looked_at for feed in self._feeds.values()
        )

    async def _look_at(self, feeds: list[Feed]) -> None:
        heads = await self._log.heads([feed.id for feed in feeds])
        for feed, head in zip(feeds, heads, strict=True):
            feed.looked(head)
        orphans = [feed.id for feed, head in zip(feeds, heads, strict=True) if head.look_in_ms == 0]
        results: list[object] = []
        for first in range(0, len(orphans), ORPHANS_AT_ONCE):
            told = map(self._orphaned, orphans[first : first + ORPHANS_AT_ONCE])
            results += await asyncio.gather(*told, return_exceptions=True)
        if errors := [result for result in results if isinstance(result, BaseException)]:
            raise errors[0]

    def _died(self, task: asyncio.Task[None]) -> None:
        """Without one of its tasks the hub serves nobody: wake those who wait, so that they come back."""
        self._end_readers()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s died\n%s", task.get_name(), stack_of(error))

    def _end_readers(self) -> None:
        self._closed = self.subscriber.ended = True
        for feed in tuple(self._feeds.values()):  # who rests leaves at once
            if not feed.acknowledged.done():
                feed.acknowledged.set_exception(StoreUnavailable())
                feed.acknowledged.exception()  # somebody may be waiting for it, but need not be
            for reader in tuple(feed.readers):
                reader.end("stopping")


def _now() -> float:
    return asyncio.get_running_loop().time()
