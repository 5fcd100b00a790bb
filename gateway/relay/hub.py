"""Local fan-out: one subscriber connection for a process, many readers.

The first reader of a stream subscribes this process to the stream's channel, and the last reader that leaves
unsubscribes it. A publish only wakes. A reader must read the log in each of these cases: the connection was
lost; more waits for the reader than the bound allows; the store names an event that the reader lacks.

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
UNHEARD_LOOKS = 2  # so many answers of the store in a row, for one feed: a single publish may be lost
STALLED_SECONDS = 60.0  # a reader whose socket takes nothing for so long is cut
Orphaned = Callable[[str], Awaitable[object]]  # called with the id of a stream whose lease or wait is over
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
        self.readers = 0  # how many this process has now
        self._by_owner: Counter[str] = Counter()  # how many of them each owner's streams have
        self._feeds: dict[bytes, Feed] = {}
        self._fresh: list[Feed] = []  # feeds with blocks that are not offered to their readers yet
        self.subscriber = Subscriber(where, self)
        self._tasks: list[asyncio.Task[None]] = []
        self._bells: dict[bytes, Bell] = {}
        self._closed = False

    def open(self) -> None:
        """Start the tasks: the connection, the pulse for all readers, and the questions to the store."""
        works = (("listen", self.subscriber.run()), ("pulse", self._pulse()), ("look", self._looks()))
        for name, work in works:
            task = asyncio.create_task(work, name=f"hub-{name}")
            task.add_done_callback(self._died)
            self._tasks.append(task)

    async def close(self) -> None:
        """Stop. Readers that this process still has are ended."""
        self._end_readers()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def subscribe(self, stream_id: str) -> AsyncIterator[Subscription]:
        """A reader of a stream, once the server has acknowledged the subscription.

        Raises StoreUnavailable when the server does not within 5 s, or TooManyReaders.
        """
        feed, reader = self.join(stream_id)
        try:
            await self.acknowledged(feed)
            yield reader
        finally:
            self.leave(feed, reader)

    def join(self, stream_id: str, owner: str = "", after: Cursor | None = None) -> tuple[Feed, Subscription]:
        """Add a reader that has the events up to `after`. The caller gives the reader back by `leave`.

        `owner` is the stream's owner. Where callers are not asked who they are, all streams have the same
        owner; that owner then has no bound of its own. Raises StoreUnavailable or TooManyReaders.
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
        """What is set whenever something may have been published there, and when this process stops.

        Who listens takes a reader's place of this owner. Raises StoreUnavailable or TooManyReaders.
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
        """Whether this process serves no reader any more."""
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
        """Raise TooManyReaders when there is no room for one more: in all, or of this stream or owner.

        The streams of one owner also have at most as many readers as there are places left. So others find a
        place, even when a few owners flood this process.
        """
        left = self._most - self.readers
        feed = self._feeds.get(channel_of(stream_id))
        if left <= 0 or (feed and len(feed.readers) >= self._most_of_stream):
            raise TooManyReaders
        if owner and owner != ANONYMOUS and self._by_owner.get(owner, 0) >= min(self._most_of_owner, left):
            raise TooManyReaders

    def wanted(self) -> Iterable[Feed | Bell]:
        """The feeds that have readers, and the bells that somebody waits for."""
        return itertools.chain(self._feeds.values(), self._bells.values())

    def heard(self, channel: bytes, payload: bytes) -> None:
        """A block was published for all readers of a stream. It is offered to them by the next `deliver`."""
        feed = self._feeds.get(channel)
        if feed is None:
            if bell := self._bells.get(channel):
                bell.ring()
            return  # or the last reader has just left
        feed.heard_at = _now()
        try:
            block = Block.parse(payload)
        except ValueError:  # another release may have published it: readers read the log
            feed.doubt()
            return
        telemetry.relay_lag.heard(block.at_ms)
        if not feed.fresh:
            self._fresh.append(feed)
        feed.fresh.append(block)

    def deliver(self) -> None:
        """Offer what has been heard to the readers. Blocks of one stream that follow are offered as one."""
        now, fresh, self._fresh = _now(), self._fresh, []
        for feed in fresh:
            blocks, feed.fresh = feed.fresh, []
            for block in merged(blocks):
                for reader in tuple(feed.readers):
                    reader.offer(block, now)

    def lost(self) -> None:
        """The connection has ended: no feed is subscribed any more, and every reader must read the log."""
        for feed in self._feeds.values():
            if feed.acknowledged.done():
                feed.acknowledged = asyncio.get_running_loop().create_future()
            feed.doubt()
        self._ring_all()

    async def _pulse(self) -> None:
        """Every half second: heartbeats for all readers, and a check of the connection. It never waits."""
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            now = _now()
            for feed in self._feeds.values():
                for reader in feed.readers:
                    self._beat(reader, now)
            self.subscriber.pulse()

    async def _looks(self) -> None:
        """Every half second: ask the store about feeds. In this task a slow store delays no heartbeat."""
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            now = _now()
            try:
                await self._look([feed for feed in self._feeds.values() if now >= feed.look_at(now)])
            except (StoreUnavailable, QueueUnavailable):
                continue  # the next round is the retry; readers notice a store out of reach by themselves
            except Exception as error:  # this task must go on: nobody else notices a lost publish
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
            if isinstance(result, BaseException):  # only now: of a cluster, every node has been asked
                raise result

    def _judge(self) -> None:
        """Tell the subscriber when logs grow and no block is heard, and when blocks are heard again."""
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
        """One of the tasks has ended, so the hub can serve nobody. End all readers: they can come back."""
        self._end_readers()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s died\n%s", task.get_name(), stack_of(error))

    def _end_readers(self) -> None:
        self._closed = self.subscriber.ended = True
        for feed in tuple(self._feeds.values()):  # a copy: readers that rest leave at once
            if not feed.acknowledged.done():
                feed.acknowledged.set_exception(StoreUnavailable())
                feed.acknowledged.exception()  # marked as seen: without a waiter asyncio would log it
            for reader in tuple(feed.readers):
                reader.end(Why.STOPPING)
        self._ring_all()

    def _ring_all(self) -> None:
        for bell in self._bells.values():
            bell.ring()


def _now() -> float:
    return asyncio.get_running_loop().time()
