"""Run a graph with its checkpoints: its checkpointer, its saved state, and the command to continue.

A graph with its own checkpointer keeps it, and each step is stored before the next one begins. A graph
without one gets the product's checkpointer (`Stage.memory`). Its checkpoints are stored when the run ends,
and a later attempt begins where the earlier attempt began. A graph with `checkpointer=False` stays without
one.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.langchain.stage import Answer, CheckpointLost, Stage

if TYPE_CHECKING:
    from workers.checkpoints.draft import Draft

_log = logging.getLogger("holdfast.graph")


@dataclass(slots=True)
class Checkpointed:
    """One attempt at a graph. `known` is its saved state before the attempt. None: the graph begins."""

    graph: Any
    stage: Stage
    draft: Draft | None = None
    known: Any = None

    @classmethod
    async def of(cls, graph: Any, stage: Stage, config: Any) -> Checkpointed:
        """Return the graph with its checkpointer. Raises CheckpointLost, or an exception of the checkpointer.

        If the request names a checkpoint to continue from, and the run has not begun, its id is written into
        `config`.
        """
        draft = await stage.memory.draft() if graph.checkpointer is None and stage.memory else None
        if draft is not None:
            graph = copy.copy(graph)
            graph.checkpointer = draft
        one = cls(graph, stage, draft)
        if draft is None or stage.answer is not None or stage.lasts:
            one.known = await state_of(graph, config)
        if (named := (stage.graph or {}).get("checkpoint")) and remembers(graph) and not one.has_begun:
            config["configurable"]["checkpoint_id"] = named
            one.known = await state_of(graph, config)
            if one.known is None:
                raise CheckpointLost(in_memory=in_memory(graph))
        if stage.answer is not None and one.known is None:
            raise CheckpointLost(in_memory=in_memory(graph))
        return one

    @property
    def has_begun(self) -> bool:
        """Whether the checkpointer has a state of this same run, so that an earlier attempt is continued."""
        return self.known is not None and self.draft is None and is_own(self.known, self.stage)

    @property
    def outlives(self) -> bool:
        """Whether another process can continue when this attempt stops at the end of a step."""
        return self.draft is None and remembers(self.graph) and not in_memory(self.graph)

    @property
    def durability(self) -> str | None:
        """When LangGraph passes its checkpoints to the checkpointer, as its option `durability`."""
        if self.draft is not None:
            each = self.stage.graph is not None and self.stage.graph.get("durability") != "exit"
            return "sync" if each else "exit"  # "sync" also stores each step in the thread's history
        return "sync" if remembers(self.graph) else None

    def command(self) -> Any:
        """Return the command that answers the graph's questions and changes its next steps.

        None: just continue.
        """
        answer = self.stage.answer
        assert answer is not None
        return command_of(answer, self._open() if self.draft is None else None)

    def _open(self) -> set[str]:
        """Return the open questions. An earlier attempt may already have answered some."""
        return {one.id for one in self.known.interrupts}

    async def keep(self, *, stopped: bool) -> bool:
        """Store the state at the run's end. Return whether a later run can continue from it.

        Raises StoreUnavailable. For a thread that the caller has named, also raises the errors of a state
        that cannot be stored.
        """
        if self.draft is None:
            if stopped and in_memory(self.graph):
                _log.warning(
                    "stream %s: the question of stage %s can be answered in this process alone, as the graph "
                    "has an InMemorySaver. Without a checkpointer of its own it has a lasting one",
                    *(self.stage.stream_id, self.stage.name),
                )
            return remembers(self.graph)
        if not stopped and not self.stage.lasts:
            return False
        try:
            await self.draft.keep()
        except (TypeError, ValueError) as error:
            if self.stage.lasts:
                raise
            _log.warning(
                "stream %s: its question cannot be answered, as the state of stage %s cannot be stored: %s",
                *(self.stage.stream_id, self.stage.name, type(error).__name__),
            )
            return False
        return True


def remembers(graph: Any) -> bool:
    """Return whether a graph has a checkpointer."""
    return graph.checkpointer is not None and not isinstance(graph.checkpointer, bool)


def in_memory(graph: Any) -> bool:
    """Return whether a graph's checkpointer stores its state only in the memory of this process."""
    return any(kind.__name__ == "InMemorySaver" for kind in type(graph.checkpointer).__mro__)


async def state_of(graph: Any, config: Any) -> Any:
    """Return the graph's saved state, or None if it has no checkpointer or has not begun."""
    if not remembers(graph):
        return None
    known = await graph.aget_state(config)
    return known if known.created_at else None


def is_own(known: Any, stage: Stage) -> bool:
    """Return whether this saved state was made by this run, not by an earlier run of its thread."""
    run = (known.metadata or {}).get("run_id")
    return run == stage.stream_id if run else not (stage.lasts or stage.answer)


def command_of(answer: Answer, still_open: set[str] | None = None) -> Any:
    """Return LangGraph's command. `still_open`: the questions that may still be answered."""
    from langgraph.types import Command, Send

    responses = {
        name: value for name, value in answer.responses.items() if still_open is None or name in still_open
    }
    goto = [Send(one["node"], one.get("input")) if isinstance(one, Mapping) else one for one in answer.goto]
    if not responses and not goto and answer.update is None:
        return None
    return Command(resume=responses or None, update=answer.update, goto=goto)
