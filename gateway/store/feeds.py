"""The feed of each owner: events about the owner's streams, as frames that are the same for every reader.

The relay reads a feed in the same way as a stream's log: `read` and `heads` work like those of `Log`, and a
published block wakes the readers. A cursor of a feed is the number of an event with a tag. A feed contains
only the newest events. A reader that has missed older events starts again from the beginning.
"""

from __future__ import annotations

import hashlib
import secrets

from gateway.protocol import Cursor, sse
from gateway.protocol.errors import CursorLost
from gateway.redis.commands import Commands
from gateway.redis.script import Script
from gateway.settings import Settings
from gateway.store.journal import JournalEntry
from gateway.store.record import Head, Piece
from gateway.store.row import row

FEED_MS = 3_600_000  # how long an event is kept for readers that reconnect
SEEN_MS = 86_400_000  # the shortest time for which the last entry number of a stream is remembered
AT_ONCE = 100
ID_LENGTH = 32  # length of a feed's id in characters; the id of a stream has another length


class Feeds:
    """The feeds of all owners. The methods raise StoreUnavailable."""

    def __init__(self, redis: Commands, settings: Settings) -> None:
        self._redis = redis
        self._keep_ms = round(settings.record_seconds * 1000)
        self._seen_ms = max(round((settings.retention + settings.tombstone) * 1000), SEEN_MS)
        self._feed_ms = min(FEED_MS, round(settings.retention * 1000))
        self._project = Script("project", shared=False)
        self._feed = Script("feed", shared=False)
        self._unfeed = Script("unfeed", shared=False)

    @staticmethod
    def id_of(owner: str) -> str:
        """Return the id of an owner's feed, as the relay uses it."""
        return hashlib.sha256(owner.encode()).hexdigest()[:ID_LENGTH]

    @staticmethod
    def is_feed(name: str) -> bool:
        """Return whether this is the id of a feed. Otherwise it is the id of a stream."""
        return len(name) == ID_LENGTH

    @staticmethod
    def keys(feed_id: str) -> list[str]:
        """Return an owner's five keys.

        `feed`: the events. `feeding`: the position of the feed. `running`: the streams that run. `spent`: the
        tokens of today. `minute`: the tokens of the last minute.
        """
        names = ("feed", "feeding", "running", "spent", "minute")
        return [f"{{{feed_id}}}:{name}" for name in names]

    @staticmethod
    def seen_key(feed_id: str, name: str) -> str:
        """Return the key that remembers which entries of one stream the feed already has.

        `name` is from `_name`.
        """
        return f"{{{feed_id}}}:seen:{name}"

    async def project(self, entry: JournalEntry) -> str:
        """Append an entry to the feed, unless the feed has it already. Return `ok`, `again`, or `stale`."""
        feed_id, name = self.id_of(entry.owner), _name(entry.stream_id)
        events, feeding, running, spent, minute = self.keys(feed_id)
        keys = [events, feeding, running, self.seen_key(feed_id, name), spent, minute]
        place = (entry.number, entry.kind, entry.read_ms, feed_id, name, _tag(), _tail(entry))
        kept = (self._keep_ms, self._seen_ms, self._feed_ms)
        at = (entry.at_ms, entry.at_ms // 86_400_000, *entry.spent)
        answer = await self._project(self._redis, keys, *place, *kept, *at)
        return str(answer[0])

    async def forget(self, owner: str, stream_id: str) -> None:
        """Remove a deleted stream from the feed. Later entries of this stream are not published either."""
        feed_id, name = self.id_of(owner), _name(stream_id)
        keys = [*self.keys(feed_id)[:3], self.seen_key(feed_id, name)]
        await self._unfeed(self._redis, keys, name, self._seen_ms)

    async def read(self, feed_id: str, after: Cursor | None) -> Piece:
        """Return the events after a cursor.

        Without a cursor return the beginning: rows of streams, of which only the last frame has an id. Raises
        CursorLost if the feed no longer has all events after the cursor.
        """
        keys, most = self.keys(feed_id)[:3], AT_ONCE
        if after is None:
            answer = await self._feed(self._redis, keys, self._keep_ms, _tag(), most)
            return _beginning(*answer[1:])
        number, _, tag = after.text.partition("-")
        answer = await self._feed(self._redis, keys, self._keep_ms, tag, most, number)
        if answer[0] == "lost":
            raise CursorLost
        found = [(_cursor(one), tail) for one, tail in zip(answer[2::2], answer[3::2], strict=True)]
        frames = b"".join(b"id: %b\n%b" % (cursor.encode(), tail) for cursor, tail in found)
        # There may be deleted events between the last event that was found and the newest event of the feed.
        # So if there are no more events to read, the newest position of the feed is the cursor.
        last = Cursor(found[-1][0] if len(found) == most else answer[1].decode())
        return Piece(frames, last, False, len(found) < most)

    async def heads(self, feed_ids: list[str]) -> list[Head]:
        """Return the position of each feed's last event."""
        asks = [("HGET", self.keys(feed_id)[1], "last") for feed_id in feed_ids]
        return [Head((last or b"").decode()) for last in await self._redis.call_all(asks)]

    async def by_node(self, feed_ids: list[str]) -> list[list[str]]:
        """Group these feed ids by the node that has their keys."""
        of = {self.keys(feed_id)[1]: feed_id for feed_id in feed_ids}
        return [[of[key] for key in keys] for keys in await self._redis.by_node(list(of))]


def _beginning(position: bytes, ended: list[bytes], running: list[bytes]) -> Piece:
    """Return the beginning of a feed.

    First the streams that ended in the last minute, the oldest first. Then the running streams, in the order
    in which they began.
    """
    pairs = sorted((int(number), tail) for number, _, tail in (one.partition(b" ") for one in running))
    tails = [*reversed(ended), *(tail for _, tail in pairs)]
    if tails:
        tails[-1] = b"id: %b\n%b" % (position, tails[-1])
    return Piece(b"".join(tails), Cursor(position.decode()), False, True)


def _tail(entry: JournalEntry) -> bytes:
    """Return the frame of the event without the line of its id."""
    told = row(entry.record)
    if (stage := entry.raw.get("stage")) is not None:
        data = b'%b,"stage":%b}' % (sse.dumps(told)[:-1], stage)
    else:
        data = sse.dumps(told)
    return b"event: %b\ndata: %b\n\n" % (entry.kind.encode(), data)


def _cursor(entry_id: bytes) -> str:
    """Return the event's id, made from the id of the entry in Redis.

    The second number of that id is the tag.
    """
    number, _, tag = entry_id.decode().partition("-")
    return f"{number}-{int(tag):04x}"


def _tag() -> str:
    return secrets.token_hex(2)


def _name(stream_id: str) -> str:
    """Return a hash that replaces the stream's id in Redis.

    The id itself would remain in Redis after the stream was deleted.
    """
    return hashlib.sha256(stream_id.encode()).hexdigest()[:16]
