"""A compiled LangGraph graph as events: its nodes as stages of their own, within the chain's stage.

Everything but interrupts, the state at the end and what a node gives to `StreamWriter` comes from callbacks,
in the order in which it happens. LangGraph is imported by whoever has made the graph, never here.
With a checkpointer of its own, a graph goes on from it (the thread is the stream, or a run of its stage):
what its finished nodes have shown stands, and is not said again. Checkpoints are then written before the next
step begins.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from gateway.protocol import Event, EventType
from workers.adapter.chunks import Emit, Outcome, Stage, config_of, text_in
from workers.adapter.nodes import NodeTap
from workers.adapter.values import plain

INTERRUPT = "__interrupt__"
MOST_STEPS = 10_000  # that a client may ask of a graph that has no limit of its own


def is_graph(runnable: Any) -> bool:
    """Whether this is a compiled graph."""
    pregel = sys.modules.get("langgraph.pregel")
    return pregel is not None and isinstance(runnable, pregel.Pregel)


def giving_states(runnable: Any) -> Any:
    """The same, but that a graph at a sequence's end yields its whole states, as `ainvoke` does."""
    from langchain_core.runnables import RunnableSequence
    from langchain_core.runnables.base import RunnableBindingBase

    if is_graph(runnable):
        return runnable.bind(stream_mode="values")
    if not isinstance(runnable, RunnableSequence | RunnableBindingBase):
        return runnable
    name = "last" if isinstance(runnable, RunnableSequence) else "bound"
    before = getattr(runnable, name)
    last = giving_states(before)
    return runnable if last is before else runnable.model_copy(update={name: last})


async def stream_graph(
    graph: Any,
    given: Any,
    params: Mapping[str, Any],
    emit: Emit,
    stage: Stage,
    outcome: Outcome,
    standing: Sequence[Event] = (),
) -> None:
    """Run a graph, or go on where its checkpointer says; `standing` is what it will not say again."""
    tap = NodeTap(emit, stage, list(graph.nodes), standing)
    config = _config(params, stage, tap.callbacks)
    if steps := _most_steps(graph, params):
        config["recursion_limit"] = steps
    async with tap.listening(outcome) as own:
        state = await _state(graph, config)
        values = state.values if state else None
        if state is None or state.next:
            source = None if state else _input(graph, given)
            durability = "sync" if _remembers(graph) else None
            made: AsyncGenerator[Any, None] = graph.astream(
                source, config, stream_mode=["values", "custom"], durability=durability
            )
            async with aclosing(made) as parts:
                async for mode, data in parts:
                    if mode == "custom":
                        await tap.emit(stage.custom("custom", plain(data)))
                        continue
                    own.interrupts = [{"id": asked.id, "value": plain(asked.value)} for asked in _asked(data)]
                    values = data
        await tap.flush()
        own.result = _result(values)
        if not tap.has_spoken and not own.interrupts:
            await tap.emit(stage.custom("result", own.result))
    outcome.result, outcome.interrupts = own.result, own.interrupts
    if own.interrupts:
        outcome.finish_reason = "interrupted"


async def standing_of(
    graph: Any, params: Mapping[str, Any], stage: Stage, events: Sequence[Event]
) -> set[int]:
    """Which of the published events belong to nodes that the checkpointer knows to be finished."""
    state = await _state(graph, _config(params, stage, []))
    if state is None:
        return set()
    if not state.next:
        return set(range(len(events)))
    reached = (state.metadata or {}).get("step", -1)
    names = {task.name for task in state.tasks}
    finished = {n for n in names if all(task.result is not None for task in state.tasks if task.name == n)}
    runs = {
        (event.data["name"], event.data["run"])
        for event in events
        if event.type is EventType.STAGE
        and (event.data["step"] <= reached or (event.data["name"] in finished and _ended(event, events)))
    }
    kept = {number for number, event in enumerate(events) if _run_of(event) in runs}
    last = max(kept, default=-1)  # what belongs to no node stands where it was followed by what stands
    return kept | {number for number in range(last) if not _run_of(events[number])[1]}


def _ended(event: Event, events: Sequence[Event]) -> bool:
    return any(
        other.type is EventType.STAGE
        and other.data["state"] == "finished"
        and _run_of(other) == _run_of(event)
        for other in events
    )


def _run_of(event: Event) -> tuple[str, int]:
    data = event.data
    return data["name" if event.type is EventType.STAGE else "stage"], data.get("run", 0)


def _remembers(graph: Any) -> bool:
    return graph.checkpointer is not None and not isinstance(graph.checkpointer, bool)


async def _state(graph: Any, config: Any) -> Any:
    """Where the graph stands by its own checkpointer; None when it has none, or has not begun."""
    if not _remembers(graph):
        return None
    state = await graph.aget_state(config)
    return state if state.created_at else None


def _config(params: Mapping[str, Any], stage: Stage, callbacks: list[Any]) -> Any:
    config = config_of(params, stage, callbacks)
    config["configurable"]["thread_id"] = stage.thread
    return config


def _most_steps(graph: Any, params: Mapping[str, Any]) -> int | None:
    """The client's `recursion_limit`, within the graph's own; None where the client has given none."""
    asked = params.get("recursion_limit")
    if type(asked) is not int or asked < 1:
        return None
    own = (graph.config or {}).get("recursion_limit", MOST_STEPS)
    return min(asked, int(own))


def _input(graph: Any, given: Any) -> Any:
    """A conversation, or one message's text, for a graph that keeps messages; else what was given.

    A stage of several is given them as `input`, beside what the stages before it have made.
    """
    if "messages" not in graph.channels:
        return given
    if isinstance(given, list | str):
        return {"messages": given}
    asked = given.get("input") if isinstance(given, Mapping) and "messages" not in given else None
    return {**given, "messages": asked} if isinstance(asked, list | str) else given


def _asked(values: Any) -> Sequence[Any]:
    return values.get(INTERRUPT) or () if isinstance(values, Mapping) else ()


def _result(values: Any) -> Any:
    """The last message's text where the state has messages, else the state as JSON."""
    if not isinstance(values, Mapping):
        return plain(values)
    messages = values.get("messages")
    if isinstance(messages, list) and messages:
        last = messages[-1]
        content = last.get("content") if isinstance(last, Mapping) else getattr(last, "content", None)
        if isinstance(content, str | list):
            return text_in(content)
    return plain({name: value for name, value in values.items() if name != INTERRUPT})
