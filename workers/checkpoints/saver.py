"""A LangGraph checkpointer on plain Redis (a cluster or one server), for the threads of one owner.

The value of a channel is stored once for each of its versions. So a checkpoint needs space only for the
channels that changed. When a thread has used all of its bytes, its oldest checkpoints are deleted. Two kinds
are never deleted: the newest checkpoint of a namespace from which a graph may continue, and the last eight
puts. A listed checkpoint is always complete. With LangGraph's delta channels, the state of a checkpoint needs
the writes of its ancestors. In such a thread nothing is deleted, and a full thread is an error.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from gateway.azure.credentials import redis_tokens
from gateway.redis.cluster import Router
from gateway.redis.commands import Commands
from gateway.redis.connect import Place
from gateway.settings import Settings
from gateway.streams.params import PRODUCT
from workers.checkpoints.blocking import Blocking
from workers.checkpoints.names import aside_of, channel_of, id_of, parts_of, quoted, unquoted, value_of
from workers.checkpoints.store import NOBODYS, Author, Bounds, Store, Stored

SECONDS = 30 * 86400.0  # 30 days, the default of GATEWAY_THREAD_SECONDS
CHECKPOINT_BYTES = 4 * 1024 * 1024
THREAD_BYTES = 64 * 1024 * 1024
PATIENCE_SECONDS = 120.0
_DELTA = "counters_since_delta_snapshot"  # The metadata field that names the delta channels.


class Saver(Blocking):
    """A checkpointer. Every process with the same Redis can continue from its checkpoints.

    `connection` belongs to the running event loop. The code that opened it must close it. `owner` is a name
    space: threads of two owners are separate, even if they have the same name. All data of a thread expires
    `seconds` after its last write. One checkpoint may have at most `checkpoint_bytes`. The writes of one task
    have the same limit. A thread may have about `thread_bytes`. When the store is unreachable, a call is
    retried for `patience` seconds.

    `in_turn` is for the gateway only. In a thread that a caller named, only the run that has the thread's
    turn may then write. The run is the `run_id` in the metadata of the config. A write of another run raises
    TurnOver.

    Raises StoreUnavailable. The methods whose name does not begin with `a` are for threads other than the
    event loop's thread.
    """

    def __init__(
        self,
        connection: Commands,
        *,
        owner: str = "",
        seconds: float = SECONDS,
        checkpoint_bytes: int = CHECKPOINT_BYTES,
        thread_bytes: int = THREAD_BYTES,
        patience: float = PATIENCE_SECONDS,
        serde: SerializerProtocol | None = None,
        in_turn: bool = False,
    ) -> None:
        super().__init__(serde=serde)
        bounds = Bounds(seconds, checkpoint_bytes, thread_bytes, patience)
        self._store = Store(connection, owner, bounds, in_turn=in_turn)

    @classmethod
    @asynccontextmanager
    async def from_url(cls, url: str, **options: Any) -> AsyncIterator[Saver]:
        """Open a saver with its own connection. `options` are the arguments of the class.

        `url` begins with `redis://`, `rediss://` or `unix://`. It names one server, or any node of a cluster.
        """
        async with _opened(Place(url)) as connection:
            yield cls(connection, **options)

    @classmethod
    @asynccontextmanager
    async def from_settings(cls, settings: Settings, **options: Any) -> AsyncIterator[Saver]:
        """Open a saver on the gateway's own Redis, with the gateway's identity.

        `settings` is the object that a chain factory receives. Threads expire after GATEWAY_THREAD_SECONDS.
        Raises ValueError when REDIS_URL is not set.
        """
        if not settings.redis_url:
            raise ValueError("Saver.from_settings needs REDIS_URL")
        tokens = redis_tokens(settings)
        try:
            async with _opened(Place(settings.redis_url, tokens)) as connection:
                yield cls(connection, **{"seconds": settings.thread_seconds, **options})
        finally:
            if tokens is not None:
                await tokens.close()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or None when there is none.

        Without a checkpoint id it is the newest checkpoint of the thread and namespace.
        """
        thread, namespace, checkpoint = _place_of(config)
        found = await self._store.read(thread, namespace, checkpoint)
        return None if found is None else self.tuple_of(thread, found)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """List the checkpoints of the thread, newest first.

        Without `config`, list all threads one after the other.
        `filter`: list only checkpoints whose metadata has these values. `before`: list only checkpoints with
        smaller ids.
        """
        threads = await self._store.threads() if config is None else [_place_of(config)[0]]
        left = limit
        for thread in threads:
            async for identity in self._ids(thread, config, before):
                if left is not None and left <= 0:
                    return
                if filter and not await self._has(thread, identity, filter):
                    continue
                found = await self._store.read(thread, *parts_of(identity))
                if found is not None:  # None: deleted in the meantime
                    left = None if left is None else left - 1
                    yield self.tuple_of(thread, found)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
        *,
        by: Author = NOBODYS,
    ) -> RunnableConfig:
        """Store a checkpoint. `config` names the checkpoint from which it continues, if there is one.

        Raises CheckpointTooLarge, ThreadFull or CheckpointGone. Nothing was stored then.
        """
        thread, namespace, parent = _place_of(config)
        kept: dict[str, Any] = {**checkpoint}
        channels = kept.pop("channel_values")
        needs = [value_of(namespace, *item) for item in checkpoint["channel_versions"].items()]
        values = {
            name: self._dumped(channels[channel]) if channel in channels else b""
            for channel, version in new_versions.items()
            if (name := value_of(namespace, channel, version)) in needs
        }
        whole: Mapping[str, Any] = get_checkpoint_metadata(config, metadata)
        told = {name: value for name, value in whole.items() if not name.startswith(PRODUCT)}
        one = Stored(
            id=id_of(namespace, checkpoint["id"]),
            parent=id_of(namespace, parent) if parent else "",
            run=str(told.get("run_id") or ""),
            needs=needs,
            checkpoint=self._dumped(kept),
            metadata=self._dumped(told),
            values=values,
        )
        await self._store.put(thread, one, delta=bool(told.get(_DELTA)), by=by)
        return _config(thread, namespace, checkpoint["id"])

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
        *,
        by: Author = NOBODYS,
    ) -> None:
        """Store what a task has written after the checkpoint that `config` names.

        Storing the same write again changes nothing. But an error, an interrupt or a resume value replaces
        the stored one.
        Raises CheckpointTooLarge or ThreadFull. Nothing was stored then.
        """
        thread, namespace, checkpoint = _place_of(config)
        given = []
        for number, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, number)
            about = f"{quoted(task_path)} {quoted(channel)} ".encode()
            given.append((f"/{quoted(task_id)}/{index}", index < 0, about + self._dumped(value)))
        run = (config.get("metadata") or {}).get("run_id") or config["configurable"].get("run_id") or ""
        await self._store.put_writes(thread, id_of(namespace, checkpoint), given, str(run), by=by)

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete all data of a thread: its keys, and its name in every other key."""
        await self._store.delete(thread_id)
        await self._store.delete(aside_of(thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of these runs (`run_id` in the metadata) from all threads of the owner."""
        if not run_ids:
            return
        for thread in await self._store.threads():
            for run in run_ids:
                await self._store.drop(thread, await self._store.ids_of_run(thread, run))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread to another thread.

        Data already in the target thread stays.
        After an exception, a part may have been copied. The same call again copies the rest.
        """
        for identity in await self._store.all_ids(source_thread_id):
            one = await self._store.read(source_thread_id, *parts_of(identity))
            if one is None:
                continue
            await self._store.put(target_thread_id, one, delta=self.is_delta(one))
            if one.writes:
                writes = [(name, True, data) for name, data in one.writes.items()]
                await self._store.put_writes(target_thread_id, identity, writes)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete old checkpoints (`keep_latest`), or the whole threads (`delete`).

        `keep_latest` keeps the newest checkpoint of each namespace. It also keeps the ancestors from which
        the delta channels of a kept checkpoint are computed. Raises ValueError for another strategy.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"unknown strategy {strategy!r}: keep_latest or delete")
        for thread in thread_ids:
            if strategy == "delete":
                await self.adelete_thread(thread)
                continue
            ids = await self._store.all_ids(thread)
            newest = {parts_of(identity)[0]: identity for identity in sorted(ids)}
            kept = set(newest.values())
            for identity in newest.values():
                kept |= await self._ancestry(thread, identity)
            await self._store.drop(thread, [identity for identity in ids if identity not in kept])

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return a version that no other branch of the thread has: a growing number and a random number."""
        number = int(str(current).split(".")[0]) if current is not None else 0
        return f"{number + 1:032}.{secrets.token_hex(8)}"

    @property
    def store(self) -> Store:
        """The store that reads and writes the same threads as bytes."""
        return self._store

    def run_of(self, one: Stored) -> str:
        """Return the run that the checkpoint's metadata names, or an empty string."""
        return str(self._loaded(one.metadata).get("run_id") or "")

    def is_delta(self, one: Stored) -> bool:
        """Return whether the state of this checkpoint needs the writes of its ancestors."""
        return bool(self._loaded(one.metadata).get(_DELTA))

    async def _ids(
        self, thread: str, config: RunnableConfig | None, before: RunnableConfig | None
    ) -> AsyncIterator[str]:
        """Yield the ids of the checkpoints to list: one checkpoint, a namespace's, or all of the thread's."""
        _, namespace, checkpoint = _place_of(config) if config else ("", "", "")
        below = (get_checkpoint_id(before) or "") if before else ""
        if checkpoint:
            if not below or checkpoint < below:
                yield id_of(namespace, checkpoint)
        elif config and config["configurable"].get("checkpoint_ns") is not None:
            async for identity in self._store.ids(thread, namespace, below):
                yield identity
        else:
            ids = await self._store.all_ids(thread)
            for identity in sorted(ids, key=lambda one: parts_of(one)[1], reverse=True):
                if not below or parts_of(identity)[1] < below:
                    yield identity

    async def _has(self, thread: str, identity: str, wanted: Mapping[str, Any]) -> bool:
        """Return whether the metadata of this checkpoint has these values. Only the metadata is read."""
        found = await self._store.metadata(thread, identity)
        told = self._loaded(found) if found is not None else {}
        return all(told.get(name) == value for name, value in wanted.items())

    async def _ancestry(self, thread: str, identity: str) -> set[str]:
        """Return the ancestors whose writes and values are needed for the delta channels of a checkpoint."""
        one = await self._store.read(thread, *parts_of(identity))
        if one is None:
            return set()
        missing = set(self._loaded(one.metadata).get(_DELTA) or ()) - _channels(one)
        found: set[str] = set()
        while missing and one is not None and one.parent and one.parent not in found:
            found.add(one.parent)
            one = await self._store.read(thread, *parts_of(one.parent))
            missing -= _channels(one) if one is not None else set()
        return found

    def tuple_of(self, thread: str, one: Stored) -> CheckpointTuple:
        """Convert a stored checkpoint to a LangGraph `CheckpointTuple`."""
        namespace, checkpoint = parts_of(one.id)
        values = {channel_of(name): self._loaded(data) for name, data in one.values.items() if data}
        writes = []
        for name, data in one.writes.items():
            _, task, index = name.split("/")
            path, channel, value = data.split(b" ", 2)
            key = writes_sort_key(unquoted(path.decode()), unquoted(task), int(index))
            writes.append((key, (unquoted(task), unquoted(channel.decode()), self._loaded(value))))
        writes.sort(key=lambda item: item[0])
        body: Checkpoint = self._loaded(one.checkpoint)
        body["channel_values"] = values
        return CheckpointTuple(
            config=_config(thread, namespace, checkpoint),
            checkpoint=body,
            metadata=self._loaded(one.metadata),
            parent_config=_config(thread, *parts_of(one.parent)) if one.parent else None,
            pending_writes=[write for _, write in writes],
        )

    def _dumped(self, value: Any) -> bytes:
        """Return the type and the bytes that LangGraph's serializer makes of a value."""
        kind, data = self.serde.dumps_typed(value)
        return kind.encode() + b":" + data

    def _loaded(self, data: bytes) -> Any:
        kind, _, value = data.partition(b":")
        return self.serde.loads_typed((kind.decode(), value))


@asynccontextmanager
async def _opened(place: Place) -> AsyncIterator[Commands]:
    connection = Router(place, name="holdfast-checkpoints")
    try:
        yield connection
    finally:
        await connection.close()


def _channels(one: Stored) -> set[str]:
    """Return the channels that have a value stored with this checkpoint."""
    return {channel_of(name) for name, data in one.values.items() if data}


def _place_of(config: RunnableConfig) -> tuple[str, str, str]:
    """Return thread, namespace and checkpoint. The checkpoint is empty when `config` names none."""
    configurable = config["configurable"]
    namespace = configurable.get("checkpoint_ns") or ""
    return str(configurable["thread_id"]), namespace, get_checkpoint_id(config) or ""


def _config(thread: str, namespace: str, checkpoint: str) -> RunnableConfig:
    place = {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint}
    return {"configurable": place}
