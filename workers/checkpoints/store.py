"""Store the checkpoints of one owner's threads as bytes in plain Redis. This module does not use LangGraph.

Each change is one Lua script in one slot. Running the same change again has no effect. So when the answer to
a call is lost, the call is repeated until the store answers or `patience` seconds are over. Every key
expires: each write to a thread renews the expiry of all keys of the thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.commands import Commands
from gateway.redis.script import Script
from gateway.runtime.backoff import Backoff
from gateway.store.threads import named_keys, own_thread
from workers.checkpoints.errors import CheckpointGone, CheckpointTooLarge, ThreadFull, TurnOver
from workers.checkpoints.names import id_of, is_aside, keys_of, quoted, threads_of, unquoted

PAGE = 100  # The number of names in one answer, or of checkpoints deleted by one call.
_PAUSES_SECONDS = (0.1, 2.0)  # The shortest and longest pause between two calls to an unreachable store.
_PUT, _WRITE, _READ, _DROP, _FENCE = (
    Script(name, beginning="thread")
    for name in ("put_checkpoint", "put_writes", "read_checkpoint", "drop_checkpoints", "fence_checkpoints")
)
_KEEP = Script("keep_thread", shared=False)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a store: how much it stores, for how long, and how long a failed call is retried."""

    seconds: float  # lifetime of a thread after its last write
    checkpoint_bytes: int  # most bytes of one checkpoint, or of one task's writes
    thread_bytes: int  # most bytes of a whole thread
    patience: float  # seconds for which calls to an unreachable store are retried

    def __post_init__(self) -> None:
        if min(self.seconds, self.checkpoint_bytes, self.thread_bytes) <= 0 or self.patience < 0:
            raise ValueError("seconds and bounds must be more than 0, and patience may not be negative")


@dataclass(frozen=True, slots=True)
class Author:
    """The run, and the attempt at it, that changes a thread.

    After `fence` was called for a newer attempt, changes by older attempts are refused.
    """

    run: str = ""
    number: int = 0  # the attempt; 0: the caller has no attempts


NOBODYS = Author()


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint as it is stored. `needs` has the names of its values.

    Some of these names have no value.
    """

    id: str
    parent: str  # the id of the parent checkpoint, or empty
    run: str
    needs: Sequence[str]
    checkpoint: bytes = field(repr=False)
    metadata: bytes = field(repr=False)
    values: Mapping[str, bytes] = field(repr=False)  # value name -> bytes
    writes: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # /task/index -> bytes


class Store:
    """The threads of one owner. Raises StoreUnavailable.

    `in_turn`: in a thread that a caller has named, only the run that has the thread's turn may write.
    """

    def __init__(self, redis: Commands, owner: str, bounds: Bounds, *, in_turn: bool = False) -> None:
        self._redis = redis
        self._owner = owner
        self._bounds = bounds
        self._ms = round(bounds.seconds * 1000)
        self._in_turn = in_turn

    @property
    def connection(self) -> Commands:
        """The connection to the Redis that stores the threads."""
        return self._redis

    async def fence(self, thread: str, by: Author, *, empty: bool = False) -> None:
        """Refuse all later changes by older attempts to the thread.

        `empty`: first delete all data of the thread.
        Raises TurnOver when a newer attempt has already changed the thread.
        """
        given = (quoted(by.run), by.number, self._ms, "empty" if empty else "")
        if (await self._run(_FENCE, thread, *given))[0] == "left":
            raise TurnOver

    async def put(
        self, thread: str, one: Stored, *, delta: bool, copied: bool = False, by: Author = NOBODYS
    ) -> None:
        """Store a checkpoint without its writes. `delta`: its state needs the writes of its ancestors.

        `copied`: the checkpoint is a copy, so it is stored even if the run that made it does not have the
        thread's turn.
        Raises CheckpointTooLarge, ThreadFull, CheckpointGone or TurnOver.
        """
        given = [item for pair in one.values.items() for item in pair]
        needs = "".join(f" {value}" for value in one.needs)
        size = sum(map(len, (*given, needs, one.checkpoint, one.metadata)))
        about = (one.id, one.parent, quoted(one.run), needs, "delta" if delta else "")
        data = (one.checkpoint, one.metadata, *given)
        await self._change(_PUT, thread, size, about, data, free=copied, by=by)

    async def put_writes(
        self,
        thread: str,
        identity: str,
        writes: Sequence[tuple[str, bool, bytes]],
        run: str = "",
        *,
        copied: bool = False,
        by: Author = NOBODYS,
    ) -> None:
        """Store writes of a task. Each is (/task/index, whether it replaces a stored write, bytes).

        The checkpoint may be stored later. Raises CheckpointTooLarge, ThreadFull or TurnOver.
        """
        given = [part for name, again, data in writes for part in (name, "again" if again else "once", data)]
        size = sum(map(len, given))
        await self._change(_WRITE, thread, size, (identity, quoted(run)), given, free=copied, by=by)

    async def read(self, thread: str, namespace: str, checkpoint: str = "") -> Stored | None:
        """Return a checkpoint with its values and writes, or None.

        Without `checkpoint`: the namespace's newest.
        """
        identity = id_of(namespace, checkpoint) if checkpoint else ""
        word, *found = await self._run(_READ, thread, quoted(namespace), identity, "")
        if word == "none":
            return None
        identity, head, body, metadata, values, writes = found
        parent, run, *needs = head.decode().split(" ")
        return Stored(
            identity.decode(),
            parent[1:],
            unquoted(run[1:]),
            needs,
            body,
            metadata,
            _pairs(values),
            _pairs(writes),
        )

    async def size(self, thread: str, namespace: str) -> int:
        """Return the number of bytes that `read` would return for the newest checkpoint of a namespace."""
        word, *found = await self._run(_READ, thread, quoted(namespace), "", "size")
        return int(found[0]) if word == "size" else 0

    async def metadata(self, thread: str, identity: str) -> bytes | None:
        """Return only the metadata of a checkpoint, or None."""
        found: bytes | None = await self._call("HGET", keys_of(self._owner, thread)[0], f"m{identity}")
        return found

    async def ids(self, thread: str, namespace: str, before: str = "") -> AsyncIterator[str]:
        """Yield the ids of a namespace's checkpoints that are below `before`, the greatest name first."""
        first = f"c/{quoted(namespace)}/"
        last = f"{first}{quoted(before)}" if before else f"{first[:-1]}0"
        while True:
            command = ("ZREVRANGEBYLEX", keys_of(self._owner, thread)[1], f"({last}", f"[{first}")
            page = await self._call(*command, "LIMIT", 0, PAGE)
            for name in page:
                yield name[1:].decode()
            if len(page) < PAGE:
                return
            last = page[-1].decode()

    async def all_ids(self, thread: str) -> list[str]:
        """Return the ids of a thread's checkpoints in all namespaces, in the order of their first puts."""
        found: dict[str, None] = {}
        last = "-inf"
        while True:
            command = ("ZRANGEBYSCORE", keys_of(self._owner, thread)[2], last, "+inf")
            page = await self._call(*command, "WITHSCORES", "LIMIT", 0, PAGE)
            found.update(dict.fromkeys(identity.decode() for identity in page[::2]))
            if len(page) < 2 * PAGE:
                return list(found)
            last = f"({page[-1].decode()}"

    async def ids_of_run(self, thread: str, run: str) -> list[str]:
        """Return the ids of the checkpoints that a run has made."""
        first = f"r/{quoted(run)}"
        found = await self._call("ZRANGEBYLEX", keys_of(self._owner, thread)[1], f"[{first}/", f"({first}0")
        return [name[len(first) :].decode() for name in found]

    async def newest_run(self, thread: str, namespace: str) -> str:
        """Return the run that made the newest checkpoint of a namespace, or an empty string."""
        saved, names, _ = keys_of(self._owner, thread)
        first = f"c/{quoted(namespace)}/"
        newest = await self._call("ZREVRANGEBYLEX", names, f"({first[:-1]}0", f"[{first}", "LIMIT", 0, 1)
        head = await self._call("HGET", saved, f"h{newest[0][1:].decode()}") if newest else None
        return unquoted(head.decode().split(" ")[1][1:]) if head else ""

    async def drop(self, thread: str, ids: Sequence[str], *, by: Author = NOBODYS) -> None:
        """Delete these checkpoints, their writes, and the values that no other checkpoint needs.

        Raises TurnOver when a newer attempt has changed the thread.
        """
        for start in range(0, len(ids), PAGE):
            answer = await self._run(_DROP, thread, quoted(by.run), by.number, *ids[start : start + PAGE])
            if answer[0] == "left":
                raise TurnOver

    async def delete(self, thread: str) -> None:
        """Delete all data of a thread."""
        await self._call("UNLINK", *keys_of(self._owner, thread))
        await self._call("ZREM", threads_of(self._owner), quoted(thread))

    async def threads(self) -> list[str]:
        """Return the names of the owner's threads. The thread that expires first comes first."""
        found = await self._call("ZRANGE", threads_of(self._owner), 0, -1)
        return [name for name in (unquoted(raw.decode()) for raw in found) if not is_aside(name)]

    async def _change(
        self,
        script: Script,
        thread: str,
        size: int,
        about: Sequence[str],
        data: Sequence[str | bytes],
        *,
        free: bool,
        by: Author,
    ) -> None:
        """Call the script until no second call is needed. Keep the thread in the owner's index of threads.

        `free`: do not check which run has the thread's turn.
        """
        bounds = self._bounds
        if size > bounds.checkpoint_bytes:
            raise CheckpointTooLarge(size, bounds.checkpoint_bytes)

        args = (quoted(by.run), by.number, *about, self._ms, bounds.thread_bytes, *data)
        keys = keys_of(self._owner, thread)
        if self._in_turn and not (free or own_thread(thread) or is_aside(thread)):
            keys += named_keys(self._owner, thread)[:1]

        async def change() -> str:
            answers = await asyncio.gather(
                script(self._redis, keys, *args),
                _KEEP(self._redis, [threads_of(self._owner)], quoted(thread), self._ms),
            )
            return str(answers[0][0])

        word = "more"
        while word == "more":  # Each call deletes old checkpoints. Their number is finite, so this loop ends.
            word = await self._patiently(change)
        if word == "full":
            raise ThreadFull(bounds.thread_bytes)
        if word == "gone":
            raise CheckpointGone
        if word == "left":
            raise TurnOver

    async def _run(self, script: Script, thread: str, *args: Any) -> list[Any]:
        keys = keys_of(self._owner, thread)
        return await self._patiently(lambda: script(self._redis, keys, *args))

    async def _call(self, *command: str | bytes | int | float) -> Any:
        return await self._patiently(lambda: self._redis.call(*command))

    async def _patiently(self, act: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Return the answer of `act`.

        While the store is unreachable, call it again for `patience` seconds.
        """
        loop = asyncio.get_running_loop()
        until, backoff = loop.time() + self._bounds.patience, Backoff(*_PAUSES_SECONDS, forget=float("inf"))
        while True:
            backoff.tried(loop.time())
            try:
                return await act()
            except StoreUnavailable:
                if loop.time() >= until:
                    raise
            await asyncio.sleep(backoff.left(loop.time()))


def _pairs(items: Sequence[bytes]) -> dict[str, bytes]:
    return {name.decode(): data for name, data in zip(items[::2], items[1::2], strict=True)}
