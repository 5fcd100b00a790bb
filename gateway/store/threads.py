"""Threads, as they stand in Redis: who has the turn, who waits for it, what was said.

A thread is a name that a caller has chosen; another's thread of the same name is another one. One stream has
a thread's turn at a time. Whether that one is over says its own record, in another slot: so a thread is
handed on by whoever finds that its holder is over (`queue/turns.py`), and no death of a process leaves it
busy. Each change is one script of one slot. Each key expires, a time after the thread's last use.
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

MOST_WAITING = 100  # streams of one thread
_AT_ONCE = 500  # threads that one round trip measures
_OWN = "stream:"  # before the id of the stream whose thread it is
_ENTER, _LEAVE, _HAND = (Script(name, beginning="turns") for name in ("enter", "leave", "hand"))
_BACK, _REMEMBER, _END, _LIST = (
    Script(name, shared=False) for name in ("back", "remember", "end_thread", "list_thread")
)
_DROP = Script("drop_run", beginning="thread")
_DESCRIBE = Script("describe_thread", shared=False)
_FIELDS = ("name", "holder", "waiting", "leaving", "newest", "chain", "created_ms", "updated_ms", "metadata")


def thread_id(record: Record) -> str:
    """The thread that the caller has named; else one of the stream's own, or of the first that it resumes."""
    return record.thread or own_thread_of(record.first or record.id)


def own_thread_of(stream_id: str) -> str:
    """The thread of a stream, and of those that resume it, where its caller has named none."""
    return f"{_OWN}{stream_id}"


def own_thread(name: str) -> bool:
    """Whether it is a stream's own: no other stream but those that resume it writes there."""
    return name.startswith(_OWN)


def aside_of(thread: str) -> str:
    """The thread that keeps what stood in this one before a run wrote to it. No caller can name it."""
    return f"{thread}\0before"


def is_aside(thread: str) -> bool:
    """Whether this is such a one."""
    return thread.endswith("\0before")


def quoted(part: str) -> str:
    """This part of a name, without slash, space and colon."""
    return quote(part, safe="", errors="surrogatepass")


def unquoted(part: str) -> str:
    """The text of which `quoted` made it."""
    return unquote(part, errors="surrogatepass")


def keys_of(owner: str, thread: str) -> list[str]:
    """The keys of a thread's checkpoints, as their scripts take them."""
    tag = _tag(owner, thread)
    return [f"{tag}:saved", f"{tag}:names", f"{tag}:order"]


def named_keys(owner: str, thread: str) -> list[str]:
    """The keys of a thread that a caller has named: who has the turn, its streams, what was said, turns."""
    tag = _tag(owner, thread)
    return [f"{tag}:thread", f"{tag}:streams", f"{tag}:memory", f"{tag}:turns"]


def turns_channel(owner: str, thread: str) -> bytes:
    """The channel on which the scripts say that a stream has got the thread's turn (`turns.lua`)."""
    return f"turn:{named_keys(owner, thread)[0]}".encode()


def threads_of(owner: str) -> str:
    """The key of an owner's index of threads with checkpoints."""
    return f"{_tag(owner)}:threads"


def named_of(owner: str) -> str:
    """The key of an owner's index of the threads that he has named."""
    return f"{_tag(owner)}:named"


@dataclass(frozen=True, slots=True)
class State:
    """A thread as it stands; times in milliseconds of Redis's clock. Without a `newest` there is none."""

    holder: str = ""  # the stream that has the turn, or had it last and is over
    waiting: tuple[str, ...] = ()  # in their order
    leaving: Mapping[str, bool] | None = None  # displaced, and not ended yet; whether their traces go too
    newest: str = ""
    chain: str = ""  # of the newest
    created_ms: int = 0
    updated_ms: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)  # what a client has said of it

    @property
    def streams(self) -> list[str]:
        """All that may not have ended."""
        return [*([self.holder] if self.holder else []), *(self.leaving or ()), *self.waiting]


@dataclass(frozen=True, slots=True)
class Turn:
    """That a stream has got its thread's turn: the first one's number is 0."""

    number: int
    stream_id: str


@dataclass(frozen=True, slots=True)
class Asked:
    """How a stream asks for its thread's turn (`enter.lua`)."""

    strategy: str
    over: str = ""  # the holder that was seen to be over
    after: str = "*"  # the newest stream that this one goes on from; `*`: whichever it is
    lapses: bool = False  # an open question of the thread does, instead of refusing this stream


class Threads:
    """All callers' threads. Raises StoreUnavailable."""

    def __init__(self, redis: Commands) -> None:
        self._redis = redis

    async def look(self, owner: str, name: str) -> State:
        """As it stands."""
        return (await self.looks(owner, [name]))[0]

    async def looks(self, owner: str, names: Sequence[str]) -> list[State]:
        """Several, in one round trip."""
        commands = [("HMGET", named_keys(owner, name)[0], *_FIELDS) for name in names]
        return [_state(values) for values in await self._redis.call_all(commands)]

    async def enter(self, record: Record, asked: Asked, *, thread_ms: int, record_ms: int) -> tuple[str, str]:
        """(`turn` | `waits` | `busy` | `full` | `moved` | `left`, the stream that has the turn).

        The thread is kept for `thread_ms`, and `record_ms` is how long a stream's record may last.
        """
        thread, streams, _, turns = named_keys(record.owner, record.thread)
        about = (asked.over, asked.after, asked.strategy, MOST_WAITING, thread_ms, record_ms)
        word, *rest = await _ENTER(
            self._redis, [thread, streams, turns], record.id, *about, record.thread, record.chain
        )
        return word, rest[0].decode() if rest else ""

    async def leave(self, owner: str, name: str, stream_id: str) -> str:
        """A stream that is over leaves its thread; the one that gets the turn by that, or an empty id."""
        thread, _, _, turns = named_keys(owner, name)
        word, *rest = await _LEAVE(self._redis, [thread, turns], stream_id)
        return rest[0].decode() if word == "next" else ""

    async def hand(self, owner: str, name: str, over: str, stream_id: str) -> None:
        """The turn of a stream that was answered goes to the one that goes on with the answer."""
        thread, streams, _, turns = named_keys(owner, name)
        await _HAND(self._redis, [thread, streams, turns], over, stream_id)

    async def back(self, owner: str, name: str, stream_id: str, before: str) -> None:
        """Undo the newest stream: the thread stands where it stood before it."""
        if (await _BACK(self._redis, named_keys(owner, name)[:1], stream_id, before))[0] == "ok":
            await self.drop_run(owner, name, stream_id)

    async def drop_run(self, owner: str, name: str, stream_id: str) -> None:
        """Delete a run's checkpoints, and what is remembered of it."""
        keys = [*keys_of(owner, name), named_keys(owner, name)[2]]
        while (await _DROP(self._redis, keys, stream_id))[0] == "more":
            pass  # each call has deleted some of them, of which there is an end

    async def remember(
        self, record: Record, said: Sequence[Mapping[str, Any]], *, thread_ms: int, most_bytes: int
    ) -> bool:
        """Keep what a run has asked and said, as messages; False when it has not the turn any more.

        Where the record is `whole`, these are instead of all that was said before.
        """
        thread, _, memory, _ = named_keys(record.owner, record.thread)
        text = json.dumps({"whole": record.whole, "messages": said})
        word, *_ = await _REMEMBER(self._redis, [thread, memory], record.id, thread_ms, most_bytes, text)
        return bool(word == "ok")

    async def memory(self, owner: str, name: str, *but: str) -> list[dict[str, Any]]:
        """The messages of all runs that are remembered, in their order, without those of the runs `but`."""
        found = await self._redis.call("LRANGE", named_keys(owner, name)[2], 0, -1)
        messages: list[dict[str, Any]] = []
        for run, _, said in (one.decode().partition(" ") for one in found):
            if run not in but:
                turn = json.loads(said)
                messages = [*([] if turn["whole"] else messages), *turn["messages"]]
        return messages

    async def describe(self, owner: str, name: str, metadata: Mapping[str, Any], *, thread_ms: int) -> None:
        """Keep what a client says of a thread, which may have had no stream so far."""
        keys = named_keys(owner, name)[:1]
        await _DESCRIBE(self._redis, keys, json.dumps(metadata), thread_ms, name)

    async def has_checkpoints(self, owner: str, name: str) -> bool:
        """Whether a graph's state stands in it."""
        return bool(await self._redis.call("EXISTS", keys_of(owner, name)[0]))

    async def streams(self, owner: str, name: str) -> list[str]:
        """The ids of its streams, the newest first, as far back as their records may last."""
        found = await self._redis.call("ZREVRANGE", named_keys(owner, name)[1], 0, -1)
        return [stream_id.decode() for stream_id in found]

    async def turn_from(self, owner: str, name: str, number: int) -> Turn | None:
        """The first turn of this number or a later one, of the newest 1000; None: it was not given yet."""
        key, at = named_keys(owner, name)[3], (number, "+inf", "WITHSCORES", "LIMIT", 0, 1)
        return _turn(await self._redis.call("ZRANGEBYSCORE", key, *at))

    async def last_turn(self, owner: str, name: str) -> Turn | None:
        """The turn that was given last."""
        return _turn(await self._redis.call("ZREVRANGE", named_keys(owner, name)[3], 0, 0, "WITHSCORES"))

    async def turn_of(self, owner: str, name: str, stream_id: str) -> int | None:
        """The number of a stream's turn; None: it had none."""
        found = await self._redis.call("ZSCORE", named_keys(owner, name)[3], stream_id)
        return None if found is None else int(float(found))

    async def end(self, owner: str, name: str, seen: State) -> bool:
        """Delete all of it; False when it is not as it was seen."""
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
        """Delete the checkpoints that a stream has kept for itself, and for those that resume it."""
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
        """The owner's threads with checkpoints, but for those of single streams, which count with these."""
        found = await self._redis.call("ZRANGE", threads_of(owner), 0, -1)
        return [name for name in (unquoted(raw.decode()) for raw in found) if not own_thread(name)]

    async def bytes_of(self, owner: str, names: Sequence[str]) -> int:
        """How many bytes these threads have in checkpoints."""
        total = 0
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            sizes = await self._redis.call_all([("HGET", keys_of(owner, one)[0], "#bytes") for one in some])
            total += sum(int(size or 0) for size in sizes)
        return total

    async def note(self, owner: str, name: str, *, thread_ms: int, most: int) -> bool:
        """Put it into its owner's list; False when the owner has `most` others."""
        word, *_ = await _LIST(self._redis, [named_of(owner)], quoted(name), thread_ms, most)
        return bool(word == "ok")

    async def listed(self, owner: str, before: tuple[int, str] | None, most: int) -> list[tuple[int, str]]:
        """`most` of the owner's threads: the time of the newest stream and the name, the newest first.

        `before`: only those behind this one, whose name is quoted.
        """
        found = await newest(self._redis, named_of(owner), before, most)
        return [(at_ms, unquoted(name)) for at_ms, name in found]


def lifetimes(settings: Settings) -> tuple[int, int]:
    """How long a thread is kept after its last use, and how long a stream's record may last; milliseconds."""
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
    """A hash tag, which decides the slot; in JSON, so that no two owners' names can meet."""
    return f"{{{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}}}"
