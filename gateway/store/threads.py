"""Threads in Redis: which stream has the turn, which streams wait for it, and which messages are remembered.

A caller chooses the name of a thread. Two callers may use the same name for different threads. One stream at
a time has the turn of a thread. Only the record of that stream, in another slot, shows whether the stream is
over. So any process that finds that the holder is over passes the turn on (`queue/turns.py`). A process that
dies cannot block a thread. Each change is one script in one slot. Each key expires some time after the last
use of the thread.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from gateway.redis.commands import Commands
from gateway.redis.script import Script
from gateway.settings import Settings
from gateway.store.newest import newest
from gateway.store.record import Record

MOST_WAITING = 100  # most streams that wait in one thread
_AT_ONCE = 500  # most threads that one round trip measures
_OWN = "stream:"  # prefix of a stream's own thread; the stream's id follows
_ENTER, _LEAVE, _HAND = (Script(name, beginning="turns") for name in ("enter", "leave", "hand"))
_BACK, _REMEMBER, _END, _LIST = (
    Script(name, shared=False) for name in ("back", "remember", "end_thread", "list_thread")
)
_DROP = Script("drop_run", beginning="thread")
_DESCRIBE = Script("describe_thread", shared=False)
_FIELDS = ("name", "holder", "waiting", "leaving", "newest", "chain", "created_ms", "updated_ms", "metadata")


def thread_id(record: Record) -> str:
    """Return the thread that the caller named.

    Otherwise return the own thread of this stream, or of the first stream in its series of resumed streams.
    """
    return record.thread or own_thread_of(record.first or record.id)


def own_thread_of(stream_id: str) -> str:
    """Return the thread of a stream, and of the streams that resume it, if the caller named no thread."""
    return f"{_OWN}{stream_id}"


def own_thread(name: str) -> bool:
    """Return whether this is a stream's own thread.

    Only that stream, and streams that resume it, write there.
    """
    return name.startswith(_OWN)


def aside_of(thread: str) -> str:
    """Return the thread that stores the checkpoints of this thread from before a run.

    A caller cannot choose this name.
    """
    return f"{thread}\0before"


def is_aside(thread: str) -> bool:
    """Return whether this is the name of a thread that `aside_of` returned."""
    return thread.endswith("\0before")


def quoted(part: str) -> str:
    """Quote a part of a name, so that it contains no slash, space or colon."""
    return quote(part, safe="", errors="surrogatepass")


def unquoted(part: str) -> str:
    """Return the text from which `quoted` made this part."""
    return unquote(part, errors="surrogatepass")


def keys_of(owner: str, thread: str) -> list[str]:
    """Return the keys of a thread's checkpoints, in the order that their scripts expect."""
    tag = _tag(owner, thread)
    return [f"{tag}:saved", f"{tag}:names", f"{tag}:order"]


def named_keys(owner: str, thread: str) -> list[str]:
    """Return the keys of a named thread: its state, its streams, its remembered messages, and its turns."""
    tag = _tag(owner, thread)
    return [f"{tag}:thread", f"{tag}:streams", f"{tag}:memory", f"{tag}:turns"]


def turns_channel(owner: str, thread: str) -> bytes:
    """Return the channel on which `turns.lua` publishes that a stream has got the thread's turn."""
    return f"turn:{named_keys(owner, thread)[0]}".encode()


def threads_of(owner: str) -> str:
    """Return the key of an owner's index of threads with checkpoints."""
    return f"{_tag(owner)}:threads"


def named_of(owner: str) -> str:
    """Return the key of an owner's index of the threads that the owner has named."""
    return f"{_tag(owner)}:named"


@dataclass(frozen=True, slots=True)
class State:
    """The state of a thread. Times are milliseconds of Redis's clock.

    An empty `newest` means that the thread has no stream.
    """

    holder: str = ""  # the stream that has the turn, or the last one that had it
    waiting: tuple[str, ...] = ()  # streams in the order in which they wait
    # Streams that a later stream replaced and that have not ended. The value: whether their checkpoints and
    # messages are deleted too.
    leaving: Mapping[str, bool] | None = None
    newest: str = ""
    chain: str = ""  # chain of the newest stream
    created_ms: int = 0
    updated_ms: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)  # metadata that a client has set

    @property
    def streams(self) -> list[str]:
        """All streams of the thread that may not have ended."""
        return [*([self.holder] if self.holder else []), *(self.leaving or ()), *self.waiting]


@dataclass(frozen=True, slots=True)
class Turn:
    """The fact that a stream got the turn of its thread. The first turn of a thread has the number 0."""

    number: int
    stream_id: str


@dataclass(frozen=True, slots=True)
class Asked:
    """How a stream asks for the turn of its thread (`enter.lua`)."""

    strategy: str
    over: str = ""  # the holder that the caller found to be over
    after: str = "*"  # the newest stream from which this stream continues; `*`: any stream
    # True: this stream makes an open question of the thread expire. False: the open question refuses this
    # stream.
    lapses: bool = False


class Threads:
    """The threads of all callers. The methods raise StoreUnavailable."""

    def __init__(self, redis: Commands) -> None:
        self._redis = redis

    async def look(self, owner: str, name: str) -> State:
        """Return the state of a thread."""
        return (await self.looks(owner, [name]))[0]

    async def looks(self, owner: str, names: Sequence[str]) -> list[State]:
        """Return the states of several threads. This takes one round trip."""
        commands = [("HMGET", named_keys(owner, name)[0], *_FIELDS) for name in names]
        return [_state(values) for values in await self._redis.call_all(commands)]

    async def enter(self, record: Record, asked: Asked, *, thread_ms: int, record_ms: int) -> tuple[str, str]:
        """Ask for the thread's turn.

        Return a word and the id of the stream that has the turn. The word is `turn`, `waits`, `busy`, `full`,
        `moved` or `left` (see `enter.lua`). The thread is kept for `thread_ms`. `record_ms` is how long the
        record of a stream may last.
        """
        thread, streams, _, turns = named_keys(record.owner, record.thread)
        about = (asked.over, asked.after, asked.strategy, MOST_WAITING, thread_ms, record_ms)
        word, *rest = await _ENTER(
            self._redis, [thread, streams, turns], record.id, *about, record.thread, record.chain
        )
        return word, rest[0].decode() if rest else ""

    async def leave(self, owner: str, name: str, stream_id: str) -> str:
        """Remove a stream that is over from its thread.

        Return the id of the stream that gets the turn as a result, or an empty text.
        """
        thread, _, _, turns = named_keys(owner, name)
        word, *rest = await _LEAVE(self._redis, [thread, turns], stream_id)
        return rest[0].decode() if word == "next" else ""

    async def hand(self, owner: str, name: str, over: str, stream_id: str) -> None:
        """Pass the turn from a stream that was answered to the stream that continues with the answer."""
        thread, streams, _, turns = named_keys(owner, name)
        await _HAND(self._redis, [thread, streams, turns], over, stream_id)

    async def back(self, owner: str, name: str, stream_id: str, before: str) -> None:
        """Make the stream `before` the newest again, and delete the run of the newest stream."""
        if (await _BACK(self._redis, named_keys(owner, name)[:1], stream_id, before))[0] == "ok":
            await self.drop_run(owner, name, stream_id)

    async def drop_run(self, owner: str, name: str, stream_id: str) -> None:
        """Delete the checkpoints and the remembered messages of a run."""
        keys = [*keys_of(owner, name), named_keys(owner, name)[2]]
        while (await _DROP(self._redis, keys, stream_id))[0] == "more":
            pass  # each call deletes a part, so this loop ends

    async def remember(
        self, record: Record, said: Sequence[Mapping[str, Any]], *, thread_ms: int, most_bytes: int
    ) -> bool:
        """Store the question and the answer of a run as messages. Return False if the run lost the turn.

        If the record is `whole`, these messages replace all earlier messages.
        """
        thread, _, memory, _ = named_keys(record.owner, record.thread)
        text = json.dumps({"whole": record.whole, "messages": said})
        word, *_ = await _REMEMBER(self._redis, [thread, memory], record.id, thread_ms, most_bytes, text)
        return bool(word == "ok")

    async def memory(self, owner: str, name: str, *but: str) -> list[dict[str, Any]]:
        """Return the remembered messages of all runs in order, except those of the runs `but`."""
        found = await self._redis.call("LRANGE", named_keys(owner, name)[2], 0, -1)
        messages: list[dict[str, Any]] = []
        for run, _, said in (one.decode().partition(" ") for one in found):
            if run not in but:
                turn = json.loads(said)
                messages = [*([] if turn["whole"] else messages), *turn["messages"]]
        return messages

    async def describe(self, owner: str, name: str, metadata: Mapping[str, Any], *, thread_ms: int) -> None:
        """Store the metadata that a client sets for a thread. The thread may have no stream yet."""
        keys = named_keys(owner, name)[:1]
        await _DESCRIBE(self._redis, keys, json.dumps(metadata), thread_ms, name)

    async def has_checkpoints(self, owner: str, name: str) -> bool:
        """Return whether the thread has the state of a graph."""
        return bool(await self._redis.call("EXISTS", keys_of(owner, name)[0]))

    async def streams(self, owner: str, name: str) -> list[str]:
        """Return the ids of the thread's streams, the newest first.

        A stream is listed for as long as its record may last.
        """
        found = await self._redis.call("ZREVRANGE", named_keys(owner, name)[1], 0, -1)
        return [stream_id.decode() for stream_id in found]

    async def turn_from(self, owner: str, name: str, number: int) -> Turn | None:
        """Return the first turn with this number or a later one.

        Only the newest 1000 turns are kept. Return None if that turn was not given yet.
        """
        key, at = named_keys(owner, name)[3], (number, "+inf", "WITHSCORES", "LIMIT", 0, 1)
        return _turn(await self._redis.call("ZRANGEBYSCORE", key, *at))

    async def last_turn(self, owner: str, name: str) -> Turn | None:
        """Return the turn that was given last; None if there was none."""
        return _turn(await self._redis.call("ZREVRANGE", named_keys(owner, name)[3], 0, 0, "WITHSCORES"))

    async def turn_of(self, owner: str, name: str, stream_id: str) -> int | None:
        """Return the number of a stream's turn; None if the stream had no turn."""
        found = await self._redis.call("ZSCORE", named_keys(owner, name)[3], stream_id)
        return None if found is None else int(float(found))

    async def end(self, owner: str, name: str, seen: State) -> bool:
        """Delete the whole thread. Return False if the thread has changed since `seen` was read."""
        waiting = "".join(f"{one} " for one in seen.waiting)
        keys = [*named_keys(owner, name), *keys_of(owner, name)]
        if (await _END(self._redis, keys, seen.holder, waiting, seen.newest))[0] != "ok":
            return False
        aside = aside_of(name)
        await self._redis.call_all(
            [
                ("UNLINK", *keys_of(owner, aside)),
                ("ZREM", threads_of(owner), quoted(name), quoted(aside)),
                ("ZREM", named_of(owner), quoted(name)),
            ]
        )
        return True

    async def forget_own(self, owner: str, stream_id: str) -> None:
        """Delete the checkpoints in a stream's own thread, which streams that resume it use too."""
        name = own_thread_of(stream_id)
        aside = aside_of(name)
        await self._redis.call_all(
            [
                ("UNLINK", *keys_of(owner, name)),
                ("UNLINK", *keys_of(owner, aside)),
                ("ZREM", threads_of(owner), quoted(name), quoted(aside)),
            ]
        )

    async def names(self, owner: str) -> list[str]:
        """Return the owner's threads with checkpoints, without the own threads of single streams.

        The bytes of the latter are counted with their streams.
        """
        found = await self._redis.call("ZRANGE", threads_of(owner), 0, -1)
        return [name for name in (unquoted(raw.decode()) for raw in found) if not own_thread(name)]

    async def bytes_of(self, owner: str, names: Sequence[str]) -> int:
        """Return how many bytes the checkpoints of these threads have."""
        total = 0
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            sizes = await self._redis.call_all([("HGET", keys_of(owner, one)[0], "#bytes") for one in some])
            total += sum(int(size or 0) for size in sizes)
        return total

    async def note(self, owner: str, name: str, *, thread_ms: int, most: int) -> bool:
        """Add a thread to the list of its owner.

        Return False if the owner already has `most` other threads.
        """
        word, *_ = await _LIST(self._redis, [named_of(owner)], quoted(name), thread_ms, most)
        return bool(word == "ok")

    async def listed(self, owner: str, before: tuple[int, str] | None, most: int) -> list[tuple[int, str]]:
        """Return the time of the newest stream and the name of up to `most` threads.

        The newest threads come first. `before`: only threads after this entry, whose name is quoted.
        """
        found = await newest(self._redis, named_of(owner), before, most)
        return [(at_ms, unquoted(name)) for at_ms, name in found]


def lifetimes(settings: Settings) -> tuple[int, int]:
    """Return the lifetime of a thread after its last use, and of a stream's record, in milliseconds."""
    return round(settings.thread_seconds * 1000), round(settings.record_seconds * 1000)


def _turn(found: list[Any]) -> Turn | None:
    return Turn(int(float(found[1])), found[0].decode()) if found else None


def _state(values: Sequence[bytes | None]) -> State:
    told = dict(zip(_FIELDS, ((value or b"").decode() for value in values), strict=True))
    return State(
        told["holder"],
        tuple(told["waiting"].split()),
        {one.removesuffix("!"): one.endswith("!") for one in told["leaving"].split()},
        told["newest"],
        told["chain"],
        int(told["created_ms"] or 0),
        int(told["updated_ms"] or 0),
        json.loads(told["metadata"] or "{}"),
    )


def _tag(*parts: str) -> str:
    """Return the hash tag that decides the slot.

    JSON separates the parts, so that different owners and names never give the same tag.
    """
    return f"{{{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}}}"
