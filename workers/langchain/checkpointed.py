"""A graph with its checkpoints: which checkpointer it has, where it stands, what it goes on with.

A graph that brings a checkpointer keeps it, and each step is stored before the next begins. One that brings
none gets the product's (`Stage.memory`): what it stores stands when the run has ended, and an attempt that
follows another begins where that one began. `checkpointer=False` keeps a graph without one.
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
    """One attempt at a graph. `known` is where it stood before, by its checkpointer; None: it begins."""

    graph: Any
    stage: Stage
    draft: Draft | None = None
    known: Any = None

    @classmethod
    async def of(cls, graph: Any, stage: Stage, config: Any) -> Checkpointed:
        """The graph with its checkpointer. Raises CheckpointLost, or what the checkpointer raises.

        Where the run has named a checkpoint to go on from, and has not begun, `config` gets to name it, too.
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
        """Whether the checkpointer knows this very run: it goes on where an earlier attempt has come to."""
        return self.known is not None and self.draft is None and is_own(self.known, self.stage)

    @property
    def outlives(self) -> bool:
        """Whether another process can go on where this attempt stops at the end of a step."""
        return self.draft is None and remembers(self.graph) and not in_memory(self.graph)

    @property
    def durability(self) -> str | None:
        """When LangGraph hands its checkpoints to the checkpointer."""
        if self.draft is not None:
            each = self.stage.graph is not None and self.stage.graph.get("durability") != "exit"
            return "sync" if each else "exit"  # with each step in the thread's history, or without
        return "sync" if remembers(self.graph) else None

    def command(self) -> Any:
        """What answers the graph's questions and changes its way; None: it only goes on."""
        answer = self.stage.answer
        assert answer is not None
        return command_of(answer, self._open() if self.draft is None else None)

    def _open(self) -> set[str]:
        """The questions that are open: an earlier attempt may have brought a graph beyond some."""
        return {one.id for one in self.known.interrupts}

    async def keep(self, *, stopped: bool) -> bool:
        """Store what is to be gone on from, at the run's end; whether it can be.

        Raises StoreUnavailable; of a thread that its caller has named also what cannot be stored.
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
    """Whether a graph has a checkpointer."""
    return graph.checkpointer is not None and not isinstance(graph.checkpointer, bool)


def in_memory(graph: Any) -> bool:
    """Whether a graph's checkpointer keeps what it knows in this process alone."""
    return any(kind.__name__ == "InMemorySaver" for kind in type(graph.checkpointer).__mro__)


async def state_of(graph: Any, config: Any) -> Any:
    """Where the graph stands by its checkpointer; None when it has none, or has not begun."""
    if not remembers(graph):
        return None
    known = await graph.aget_state(config)
    return known if known.created_at else None


def is_own(known: Any, stage: Stage) -> bool:
    """Whether a graph was brought there by this run, and not by an earlier one of its thread."""
    run = (known.metadata or {}).get("run_id")
    return run == stage.stream_id if run else not (stage.lasts or stage.answer)


def command_of(answer: Answer, still_open: set[str] | None = None) -> Any:
    """LangGraph's command; `still_open`: the questions that may be answered still."""
    from langgraph.types import Command, Send

    responses = {
        name: value for name, value in answer.responses.items() if still_open is None or name in still_open
    }
    goto = [Send(one["node"], one.get("input")) if isinstance(one, Mapping) else one for one in answer.goto]
    if not responses and not goto and answer.update is None:
        return None
    return Command(resume=responses or None, update=answer.update, goto=goto)
