"""Keep the checkpoints of one run in memory until the run ends. Until then the stored thread does not change.

If a run fails, or its worker dies, its thread is unchanged. The next attempt then begins where this attempt
began. A draft may store its checkpoints although the end of its stream is then not stored. In that case the
next attempt removes these checkpoints again. So a thread and the logs of its streams always agree.
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
from workers.checkpoints.names import aside_of, is_within, parts_of, within, without
from workers.checkpoints.saver import Saver
from workers.checkpoints.store import Author, Stored

Place = tuple[str, str]  # (namespace, checkpoint id)
# The writes of tasks: (task id, number of the write) -> (channel, value). Regular writes have the numbers 0,
# 1, 2 and so on. Special writes (errors, interrupts) have negative numbers.
Writes = dict[tuple[str, int], tuple[str, Any]]


class Draft(Blocking):
    """The checkpointer that a graph uses during one run. `keep` stores in Redis what the graph has put.

    `space` is a prefix of the draft's namespace names in the thread. It is needed when several graphs of a
    chain share a thread.
    """

    def __init__(self, saver: Saver, thread: str, by: Author, *, is_new: bool, space: str = "") -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver
        self._thread = thread
        self._by = by
        self._is_new = is_new
        self._space = space
        self._puts: list[tuple[RunnableConfig, Checkpoint, CheckpointMetadata, ChannelVersions]] = []
        self._told: list[tuple[RunnableConfig, Sequence[tuple[str, Any]], str, str]] = []
        self._own: dict[Place, CheckpointTuple] = {}
        self._writes: dict[Place, Writes] = {}
        self.is_stored = False  # `keep` has begun; maybe it stored only a part

    async def keep(self) -> None:
        """Store all checkpoints and writes of this draft.

        Raises StoreUnavailable, CheckpointTooLarge, ThreadFull, CheckpointGone, or TurnOver. Raises TypeError
        or ValueError for a value that LangGraph cannot serialize. After an exception, a part of the draft may
        already be stored.
        """
        self.is_stored = True
        # An older attempt may have been paused, and may have stored something in the meantime.
        if self._by.number > 1:
            await self._saver.store.fence(self._thread, self._by)
            await take_back(self._saver, self._thread, self._by)
        changed = [
            (within(self._space, place[0]), place[1]) for place in self._writes if place not in self._own
        ]
        await _set_aside(self._saver, self._thread, self._by, changed)
        for put in self._puts:
            await self._saver.aput(self._here(put[0]), *put[1:], by=self._by)
        for told in self._told:
            await self._saver.aput_writes(self._here(told[0]), *told[1:], by=self._by)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return what `Saver.aget_tuple` returns for the thread with this run's checkpoints added to it."""
        found = self._known(config)
        if found is None and not self._is_new:
            found = await self._saver.aget_tuple(self._here(config))
            found = None if found is None else self._whole(self._own_of(found))
        return found

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Do the same as `aget_tuple`, for blocking code. For a new thread the store is not read."""
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
        """List the checkpoints of this thread only, as `Saver.alist` does.

        This run's checkpoints are the newest.
        """
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
        if self._is_new:
            return
        here = self._here(config or {"configurable": {}})
        if namespace is None:  # List all namespaces: those of other graphs in the thread are skipped below.
            here["configurable"].pop("checkpoint_ns", None)
        most = left if namespace is not None or not self._space else None
        async for one in self._saver.alist(here, filter=filter, before=before, limit=most):
            if left is not None and left <= 0:
                return
            if is_within(self._space, _place_of(one.config)[0]):
                left = None if left is None else left - 1
                yield self._whole(self._own_of(one))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Add a checkpoint to this draft."""
        return self.put(config, checkpoint, metadata, new_versions)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Add a checkpoint to this draft."""
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
        """Add the writes of a task to this draft."""
        self.put_writes(config, writes, task_id, task_path)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Add the writes of a task to this draft."""
        self._told.append((config, list(writes), task_id, task_path))
        known = self._writes.setdefault(_place_of(config), {})
        for number, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, number)
            if index < 0 or (task_id, index) not in known:
                known[task_id, index] = (channel, value)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return the next version of a channel, as the saver does."""
        return self._saver.get_next_version(current, channel)

    def _known(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return this run's checkpoint that `config` names, or this run's newest one in the namespace."""
        namespace, identity = _place_of(config)
        if not identity:
            identity = max((own for space, own in self._own if space == namespace), default="")
        found = self._own.get((namespace, identity))
        return None if found is None else self._whole(found)

    def _whole(self, found: CheckpointTuple) -> CheckpointTuple:
        """Return a copy of a checkpoint, with the writes that this run has added to it.

        The caller may change the copy.
        """
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

    def _here(self, config: RunnableConfig) -> RunnableConfig:
        """Return `config` with the thread and namespace names that the saver uses.

        The saver adds the owner.
        """
        namespace = within(self._space, _place_of(config)[0])
        place = {**config["configurable"], "thread_id": self._thread, "checkpoint_ns": namespace}
        return {**config, "configurable": place}

    def _own_of(self, found: CheckpointTuple) -> CheckpointTuple:
        """Return a checkpoint of the saver with the namespace name that the graph uses (without `space`)."""
        if not self._space:
            return found
        places = [None if one is None else _place_of(one) for one in (found.config, found.parent_config)]
        config, parent = [
            None if one is None else self._config(without(self._space, one[0]), one[1]) for one in places
        ]
        assert config is not None
        return found._replace(config=config, parent_config=parent)

    def _config(self, namespace: str, identity: str) -> RunnableConfig:
        place = {"thread_id": self._thread, "checkpoint_ns": namespace, "checkpoint_id": identity}
        return {"configurable": place}


def _place_of(config: RunnableConfig) -> Place:
    return config["configurable"].get("checkpoint_ns") or "", get_checkpoint_id(config) or ""


async def _set_aside(saver: Saver, thread: str, by: Author, places: Sequence[Place]) -> None:
    """Save a copy of these checkpoints and their writes, so that `take_back` can restore them.

    An earlier copy is deleted.
    """
    if not places:
        return
    aside = aside_of(thread)
    await saver.store.fence(aside, by, empty=True)
    for namespace, identity in places:
        if (one := await saver.store.read(thread, namespace, identity)) is not None:
            await _copy(saver, aside, one, run=by.run, by=by)


async def take_back(saver: Saver, thread: str, by: Author) -> None:
    """Restore the thread to its state before this run.

    Deletes the checkpoints of this run, and removes the writes that it added to other checkpoints.
    Raises StoreUnavailable. Raises TurnOver when a newer attempt at the run has changed the thread.
    """
    store, aside = saver.store, aside_of(thread)
    await store.drop(thread, await store.ids_of_run(thread, by.run), by=by)
    for identity in await store.ids_of_run(aside, by.run):
        one = await store.read(aside, *parts_of(identity))
        if one is not None:
            await store.drop(thread, [identity], by=by)
            await _copy(saver, thread, one, run=saver.run_of(one), by=by)


async def _copy(saver: Saver, thread: str, one: Stored, *, run: str, by: Author) -> None:
    """Copy a checkpoint: first its writes, then the checkpoint itself.

    Until the checkpoint is stored, no reader takes the writes for a complete copy.
    """
    if one.writes:
        writes = [(name, True, data) for name, data in one.writes.items()]
        await saver.store.put_writes(thread, one.id, writes, copied=True, by=by)
    await saver.store.put(thread, replace(one, run=run), delta=saver.is_delta(one), copied=True, by=by)
