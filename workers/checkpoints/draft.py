"""The checkpoints of one run, in memory until the run is at its end: the thread stands as it was until then.

A run that fails, or whose worker dies, leaves its thread alone, and the next attempt begins where this one
has begun. What a draft has stored, and its stream's end does not stand, the next attempt takes back: so a
thread and the logs of its streams tell the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    copy_checkpoint,
    get_checkpoint_id,
    get_checkpoint_metadata,
)

from workers.checkpoints.blocking import Blocking
from workers.checkpoints.names import aside_of, parts_of
from workers.checkpoints.saver import Saver
from workers.checkpoints.store import Store, Stored

Place = tuple[str, str]  # a namespace, and a checkpoint's id
# Of a task's write: its channel, and its value. Regular writes have numbers from 0 on, special ones below 0.
Writes = dict[tuple[str, int], tuple[str, Any]]


class Draft(Blocking):
    """What a graph takes for its checkpointer. `keep` stores what the graph has put."""

    def __init__(self, saver: Saver, thread: str, run: str, *, is_new: bool) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver
        self._thread = thread
        self._run = run
        self._is_new = is_new
        self._puts: list[tuple[RunnableConfig, Checkpoint, CheckpointMetadata, ChannelVersions]] = []
        self._told: list[tuple[RunnableConfig, Sequence[tuple[str, Any]], str, str]] = []
        self._own: dict[Place, CheckpointTuple] = {}
        self._writes: dict[Place, Writes] = {}
        self.is_stored = False  # perhaps not all of it

    async def keep(self) -> None:
        """Store it all.

        Raises StoreUnavailable, CheckpointTooLarge, ThreadFull, CheckpointGone, and TypeError or ValueError
        for a value that LangGraph cannot write down. A part may have been stored then.
        """
        self.is_stored = True
        changed = [place for place in self._writes if place not in self._own]
        await _set_aside(self._saver, self._thread, self._run, changed)
        for put in self._puts:
            await self._saver.aput(*put)
        for told in self._told:
            await self._saver.aput_writes(*told)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `Saver.aget_tuple`, of the thread with this run's checkpoints."""
        found = self._known(config)
        if found is None and not self._is_new:
            found = await self._saver.aget_tuple(config)
            found = None if found is None else self._whole(found)
        return found

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The same, for code that is not async. A new thread is looked up without the store."""
        found = self._known(config)
        return found if found is not None or self._is_new else super().get_tuple(config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `Saver.alist`, of this thread alone: this run's checkpoints are the newest."""
        namespace = None if config is None else config["configurable"].get("checkpoint_ns")
        below = get_checkpoint_id(before) if before else None
        left = limit
        for (own, identity), one in sorted(self._own.items(), key=lambda item: item[0][1], reverse=True):
            fits = namespace in (None, own) and not (below and identity >= below)
            if fits and all(one.metadata.get(name) == value for name, value in (filter or {}).items()):
                if left is not None and left <= 0:
                    return
                left = None if left is None else left - 1
                yield self._whole(one)
        if not self._is_new:
            async for one in self._saver.alist(config, filter=filter, before=before, limit=left):
                yield self._whole(one)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Take a checkpoint."""
        return self.put(config, checkpoint, metadata, new_versions)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Take a checkpoint."""
        namespace, parent = _place_of(config)
        kept = copy_checkpoint(checkpoint)
        self._puts.append((config, kept, metadata, new_versions))
        where = self._config(namespace, checkpoint["id"])
        self._own[namespace, checkpoint["id"]] = CheckpointTuple(
            config=where,
            checkpoint=kept,
            metadata=get_checkpoint_metadata(config, metadata),
            parent_config=self._config(namespace, parent) if parent else None,
        )
        return where

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Take what a task has written."""
        self.put_writes(config, writes, task_id, task_path)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Take what a task has written."""
        self._told.append((config, list(writes), task_id, task_path))
        known = self._writes.setdefault(_place_of(config), {})
        for number, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, number)
            if index < 0 or (task_id, index) not in known:
                known[task_id, index] = (channel, value)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """As the saver does."""
        return self._saver.get_next_version(current, channel)

    def _known(self, config: RunnableConfig) -> CheckpointTuple | None:
        """This run's own checkpoint that `config` names, or the newest of its namespace."""
        namespace, identity = _place_of(config)
        if not identity:
            identity = max((own for space, own in self._own if space == namespace), default="")
        found = self._own.get((namespace, identity))
        return None if found is None else self._whole(found)

    def _whole(self, found: CheckpointTuple) -> CheckpointTuple:
        """A checkpoint with what this run has written after it; what takes it may change it."""
        known: Writes = {}
        counts: dict[str, int] = {}
        for task, channel, value in found.pending_writes or ():
            if (index := WRITES_IDX_MAP.get(channel)) is None:
                index = counts[task] = counts.get(task, -1) + 1
            known[task, index] = (channel, value)
        for (task, index), write in self._writes.get(_place_of(found.config), {}).items():
            if index < 0 or (task, index) not in known:
                known[task, index] = write
        writes = [(task, channel, value) for (task, _), (channel, value) in known.items()]
        metadata: Any = dict(found.metadata)
        return found._replace(
            checkpoint=copy_checkpoint(found.checkpoint), metadata=metadata, pending_writes=writes
        )

    def _config(self, namespace: str, identity: str) -> RunnableConfig:
        place = {"thread_id": self._thread, "checkpoint_ns": namespace, "checkpoint_id": identity}
        return {"configurable": place}


def _place_of(config: RunnableConfig) -> Place:
    return config["configurable"].get("checkpoint_ns") or "", get_checkpoint_id(config) or ""


async def _set_aside(saver: Saver, thread: str, run: str, places: Sequence[Place]) -> None:
    """Keep these checkpoints as they are, writes and all, for `take_back`; what was kept before is over."""
    if not places:
        return
    store, aside = saver.store, aside_of(thread)
    await store.delete(aside)
    for namespace, identity in places:
        if (one := await store.read(thread, namespace, identity)) is not None:
            await _copy(store, aside, one, run=run)


async def take_back(saver: Saver, thread: str, run: str) -> None:
    """The thread as it was before this run: without its checkpoints, and without what it wrote to others."""
    store, aside = saver.store, aside_of(thread)
    await store.drop(thread, await store.ids_of_run(thread, run))
    for identity in await store.ids_of_run(aside, run):
        one = await store.read(aside, *parts_of(identity))
        if one is not None:
            await store.drop(thread, [identity])
            await _copy(store, thread, one, run=saver.run_of(one))


async def _copy(store: Store, thread: str, one: Stored, *, run: str) -> None:
    await store.put(thread, replace(one, run=run), delta=False)
    if one.writes:
        writes = [(name, True, data) for name, data in one.writes.items()]
        await store.put_writes(thread, one.id, writes)
