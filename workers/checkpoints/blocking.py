"""The blocking methods of a checkpointer, for code that runs in another thread than the event loop.

LangGraph calls these methods when a graph is run by `invoke` or `stream`. It also calls them when a node runs
in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

_Found = TypeVar("_Found")


class Blocking(BaseCheckpointSaver[str]):
    """The base class that adds the blocking methods to an async checkpointer.

    Each blocking method runs its async method in the event loop in which the saver was created, and waits for
    the result.
    Raises asyncio.InvalidStateError when it is called in the thread of that event loop, because the loop
    would wait for itself forever.
    """

    def __init__(self, *, serde: SerializerProtocol | None = None) -> None:
        super().__init__(serde=serde)
        self._loop = asyncio.get_running_loop()

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Call `aget_tuple` and wait for its result."""
        return self._wait(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Call `alist` and yield its checkpoints.

        Each checkpoint is read only when the caller asks for it.
        """
        found = self.alist(config, filter=filter, before=before, limit=limit)

        async def following() -> CheckpointTuple | None:
            return await anext(found, None)

        while (one := self._wait(following())) is not None:
            yield one

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Call `aput` and wait for its result."""
        return self._wait(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Call `aput_writes` and wait until it is done."""
        self._wait(self.aput_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Call `adelete_thread` and wait until it is done."""
        self._wait(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Call `adelete_for_runs` and wait until it is done."""
        self._wait(self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Call `acopy_thread` and wait until it is done."""
        self._wait(self.acopy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Call `aprune` and wait until it is done."""
        self._wait(self.aprune(thread_ids, strategy=strategy))

    def _wait(self, call: Coroutine[Any, Any, _Found]) -> _Found:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            call.close()
            raise asyncio.InvalidStateError(
                "This saver's event loop would wait for itself: call the async method here (`aget_tuple`, "
                "`aput`, …), and run the graph by `ainvoke` or `astream`."
            )
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()
