"""Local fan-out: one process has one subscriber connection for many readers.

The first reader of a stream subscribes this process to the stream's channel, and the last reader that leaves
unsubscribes it. A publish only wakes. A reader must read the log in each of these cases: the connection was
lost; more bytes wait for the reader than the bound allows; the store names an event that the reader lacks.

Invariant: a reader reads the log only after the server has acknowledged the subscription. So a block that is
published after that read can be missed only if the publish is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

from gateway.observe import telemetry
from gateway.protocol import ANONYMOUS, Cursor
from gateway.protocol.errors import QueueUnavailable, StoreUnavailable, TooManyReaders, stack_of
from gateway.redis.connect import TIMEOUT_SECONDS, Where
from gateway.redis.pubsub import Subscriber
from gateway.relay.bell import Bell
from gateway.relay.block import Block, merged
from gateway.relay.feed import Feed, channel_of
from gateway.relay.reader import Subscription, Why
from gateway.relay.sources import Source

PULSE_SECONDS = 0.5
ORPHANS_AT_ONCE = 32
# After this many answers in a row that named an event no block brought, the connection is doubted: one
# publish alone may be lost.
UNHEARD_LOOKS = 2
# A reader is cut when its socket has accepted nothing for this many seconds.
STALLED_SECONDS = 60.0
# Called with the id of a stream whose lease or waiting time is over.
Orphaned = Callable[[str], Awaitable[object]]
_log = logging.getLogger("holdfast.hub")


class Hub:
    """The readers of this process. `async with hub.subscribe(id) as subscription` is a reader's lifetime.

    `heartbeat` is in seconds and `reader_bytes` in bytes. `most` limits the readers of this process,
    `most_of_stream` those of one stream, and `most_of_owner` those of one owner's streams.
    """

    def __init__(
        self,
        where: Where,
        source: Source,
        orphaned: Orphaned,
        *,
        heartbeat: float,
        reader_bytes: int,
        most: int,
        most_of_stream: int,
        most_of_owner: int,
    ) -> None:
        self._source = source
        self._orphaned = orphaned
        self._heartbeat = heartbeat
        self._reader_bytes = reader_bytes
        self._most = most
        self._most_of_stream = most_of_stream
        self._most_of_owner = most_of_owner
        self.readers = 0  # how many readers this process has now
        self._by_owner: Counter[str] = Counter()  # how many readers each owner's streams have
        self._feeds: dict[bytes, Feed] = {}
        self._fresh: list[Feed] = []  # feeds with blocks that are not offered to their readers yet
        self.subscriber = Subscriber(where, self)
        self._tasks: list[asyncio.Task[None]] = []
        self._bells: dict[bytes, Bell] = {}
        self._closed = False

    def open(self) -> None:
        """Start three tasks: the connection, the pulse for all readers, and the questions to the store."""
        works = (("listen", self.subscriber.run()), ("pulse", self._pulse()), ("look", self._looks()))
        for name, work in works:
            task = asyncio.create_task(work, name=f"hub-{name}")
            task.add_done_callback(self._died)
            self._tasks.append(task)

    async def close(self) -> None:
        """Stop the tasks, and end all readers that this process still has."""
        self._end_readers()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def subscribe(self, stream_id: str) -> AsyncIterator[Subscription]:
        """Yield a reader of a stream, once the server has acknowledged the subscription.

        Raises StoreUnavailable when the server does not acknowledge within 5 s. Raises TooManyReaders.
        """
        feed, reader = self.join(stream_id)
        try:
            await self.acknowledged(feed)
            yield reader
        finally:
            self.leave(feed, reader)

    def join(self, stream_id: str, owner: str = "", after: Cursor | None = None) -> tuple[Feed, Subscription]:
        """Add a reader that has the events up to `after`. The caller must remove the reader with `leave`.

        `owner` is the stream's owner. Where callers are not authenticated, all streams have the same owner;
        that owner then has no bound of its own. Raises StoreUnavailable or TooManyReaders.
        """
        if self._closed:
            raise StoreUnavailable
        owner = "" if owner == ANONYMOUS else owner
        self.check_room(stream_id, owner)
        reader = Subscription(self._reader_bytes, after, owner=owner, now=_now())
        self._take_place(owner)
        feed = self._feeds.get(channel_of(stream_id))
        if feed is None:
            feed = Feed(stream_id)
            self._feeds[feed.channel] = feed
            self.subscriber.subscribe(feed)
        feed.readers.add(reader)
        return feed, reader

    async def acknowledged(self, feed: Feed) -> None:
        """Wait until the server has acknowledged the subscription. Raises StoreUnavailable after 5 s."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await asyncio.shield(feed.acknowledged)
        except TimeoutError as error:
            raise StoreUnavailable from error

    def leave(self, feed: Feed, reader: Subscription) -> None:
        """Remove a reader."""
        feed.readers.discard(reader)
        self._give_place(reader.owner)
        if not feed.readers and self._feeds.get(feed.channel) is feed:
            del self._feeds[feed.channel]
            self.subscriber.unsubscribe(feed)

    @contextlib.contextmanager
    def listen(self, channel: bytes, owner: str) -> Iterator[asyncio.Event]:
        """Yield an asyncio event that is set when the channel may have a new publish.

        The event is also set when this process stops. The caller takes the place of one reader of this owner.
        Raises StoreUnavailable or TooManyReaders.
        """
        if self._closed:
            raise StoreUnavailable
        owner = "" if owner == ANONYMOUS else owner
        self.check_room(owner=owner)
        self._take_place(owner)
        bell = self._bells.get(channel)
        if bell is None:
            bell = self._bells[channel] = Bell(channel)
            self.subscriber.subscribe(bell)
        rung = asyncio.Event()
        bell.waiting.add(rung)
        try:
            yield rung
        finally:
            bell.waiting.discard(rung)
            self._give_place(owner)
            if not bell.waiting and self._bells.get(channel) is bell:
                del self._bells[channel]
                self.subscriber.unsubscribe(bell)

    @property
    def is_closed(self) -> bool:
        """Whether this process has stopped serving readers."""
        return self._closed

    def _take_place(self, owner: str) -> None:
        self.readers += 1
        if owner:
            self._by_owner[owner] += 1

    def _give_place(self, owner: str) -> None:
        self.readers -= 1
        if owner:
            self._by_owner[owner] -= 1
            if not self._by_owner[owner]:
                del self._by_owner[owner]

    def check_room(self, stream_id: str = "", owner: str = "") -> None:
        """Raise TooManyReaders when there is no room for another reader.

        The room may be used up in the whole process, for this stream, or for this owner. The streams of one
        owner may also have at most as many readers as there are free places. So other owners find a place,
        even when a few owners flood this process.
        """
        left = self._most - self.readers
        feed = self._feeds.get(channel_of(stream_id))
        if left <= 0 or (feed and len(feed.readers) >= self._most_of_stream):
            raise TooManyReaders
        if owner and owner != ANONYMOUS and self._by_owner.get(owner, 0) >= min(self._most_of_owner, left):
            raise TooManyReaders

    def wanted(self) -> Iterable[Feed | Bell]:
        """Return the feeds that have readers, and the bells for which somebody waits."""
        return itertools.chain(self._feeds.values(), self._bells.values())

    def heard(self, channel: bytes, payload: bytes) -> None:
        """Store a published block until the next `deliver` offers it to all readers of its stream."""
        feed = self._feeds.get(channel)
        if feed is None:
            if bell := self._bells.get(channel):
                bell.ring()
            return  # or the last reader of the stream has just left
        feed.heard_at = _now()
        try:
            block = Block.parse(payload)
        except ValueError:  # Another release may have published it. Then the readers read the log.
            feed.doubt()
            return
        telemetry.relay_lag.heard(block.at_ms)
        if not feed.fresh:
            self._fresh.append(feed)
        feed.fresh.append(block)

    def deliver(self) -> None:
        """Offer the received blocks to the readers. Blocks that follow each other in a stream are joined."""
        now, fresh, self._fresh = _now(), self._fresh, []
        for feed in fresh:
            blocks, feed.fresh = feed.fresh, []
            for block in merged(blocks):
                for reader in tuple(feed.readers):
                    reader.offer(block, now)

    def lost(self) -> None:
        """Note that the connection has ended.

        No feed is subscribed any more, and every reader must read the log.
        """
        for feed in self._feeds.values():
            if feed.acknowledged.done():
                feed.acknowledged = asyncio.get_running_loop().create_future()
            feed.doubt()
        self._ring_all()

    async def _pulse(self) -> None:
        """Every half second, send due heartbeats and check the connection.

        This task never waits for the store.
        """
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            now = _now()
            for feed in self._feeds.values():
                for reader in feed.readers:
                    self._beat(reader, now)
            self.subscriber.pulse()

    async def _looks(self) -> None:
        """Every half second, ask the store about feeds.

        This is a task of its own, so a slow store delays no heartbeat.
        """
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            now = _now()
            try:
                await self._look([feed for feed in self._feeds.values() if now >= feed.look_at(now)])
            except (StoreUnavailable, QueueUnavailable):
                # The next round is the retry. Each reader notices by itself that the store is out of reach.
                continue
            # This task must go on: nothing else notices a lost publish.
            except Exception as error:
                _log.error("asking the store about followed streams failed:\n%s", stack_of(error))
            finally:
                self._judge()

    def _beat(self, reader: Subscription, now: float) -> None:
        silent = reader.silent_seconds(now)
        if reader.is_sending:
            if silent > STALLED_SECONDS:
                reader.cut()
        elif silent > self._heartbeat - 2 * PULSE_SECONDS:
            reader.pulse(now)

    async def _look(self, feeds: list[Feed]) -> None:
        """Ask the store for the last events of these feeds: a publish may have been lost."""
        of = {feed.id: feed for feed in feeds}
        looks = [self._look_at([of[i] for i in ids]) for ids in await self._source.by_node(list(of))]
        for result in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(result, BaseException):  # raised only now: each node of a cluster has been asked
                raise result

    def _judge(self) -> None:
        """Tell the subscriber when logs grow and no block is received, and when blocks are received again."""
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
        heads = await self._source.heads([feed.id for feed in feeds])
        for feed, head in zip(feeds, heads, strict=True):
            feed.looked(head)
        orphans = [feed.id for feed, head in zip(feeds, heads, strict=True) if head.look_in_ms == 0]
        results: list[object] = []
        for first in range(0, len(orphans), ORPHANS_AT_ONCE):
            calls = map(self._orphaned, orphans[first : first + ORPHANS_AT_ONCE])
            results += await asyncio.gather(*calls, return_exceptions=True)
        if errors := [result for result in results if isinstance(result, BaseException)]:
            raise errors[0]

    def _died(self, task: asyncio.Task[None]) -> None:
        """End all readers when one of the tasks has ended: the hub can then serve nobody.

        The clients can reconnect.
        """
        self._end_readers()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s died\n%s", task.get_name(), stack_of(error))

    def _end_readers(self) -> None:
        self._closed = self.subscriber.ended = True
        # A copy of the list: readers that rest leave at once, which changes the dictionary.
        for feed in tuple(self._feeds.values()):
            if not feed.acknowledged.done():
                feed.acknowledged.set_exception(StoreUnavailable())
                # Marks the exception as retrieved. Otherwise asyncio would log it when nobody awaits the
                # future.
                feed.acknowledged.exception()
            for reader in tuple(feed.readers):
                reader.end(Why.STOPPING)
        self._ring_all()

    def _ring_all(self) -> None:
        for bell in self._bells.values():
            bell.ring()


def _now() -> float:
    return asyncio.get_running_loop().time()
