"""A compiled LangGraph graph as events: its nodes as stages of their own, within the chain's stage.

All that is said within comes from callbacks, in the order in which it happens (`nodes`). The graph's own
stream brings what `ainvoke` takes from it: the state at the end, and what is asked. LangGraph is imported by
whoever has made the graph, never here.
With a checkpointer of its own, a graph goes on from it at the next attempt: what its finished nodes have
shown stands, and is not said again. Checkpoints are then written before the next step begins.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from gateway.protocol import Event, EventType
from gateway.streams import params as chain_params
from workers.langchain import state
from workers.langchain.checkpointed import Checkpointed, is_own, state_of
from workers.langchain.chunks import config_of, trusted
from workers.langchain.stage import Emit, Outcome, Stage
from workers.langchain.values import plain

if TYPE_CHECKING:
    from workers.langchain.nodes import NodeTap

INTERRUPT = "__interrupt__"
MOST_STEPS = 10_000  # that a client may ask of a graph that has no limit of its own


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
    from workers.langchain import pregel
    from workers.langchain.nodes import NodeTap

    tap = NodeTap(emit, stage, graph, standing)
    config = _config(params, stage, tap.callbacks)
    if steps := _most_steps(graph, params):
        config["recursion_limit"] = steps
    async with tap.listening(outcome) as own:
        place = await Checkpointed.of(graph, stage, where := _config(params, stage, []))
        graph, known, begun = place.graph, place.known, place.has_begun
        run = Run(state.shown(graph, known.values) if known else None)
        asked = _input(graph, given if known is None or stage.turn is None else stage.turn)
        if stage.graph is not None and "input" in stage.graph:
            asked = stage.graph["input"]
        config["configurable"] |= {
            name: where["configurable"][name] for name in ("checkpoint_id",) if name in where["configurable"]
        }
        if begun and _is_stopped(graph, known, standing):
            run.stopped = (
                True  # an earlier attempt has come so far; to run it again would pass the breakpoint
            )
        elif not begun or known.next:
            config["configurable"] |= pregel.writing_to(tap.write, graph, tap.steps)
            tap.control = pregel.control() if place.outlives else None
            source = None if begun else asked if stage.answer is None else place.command()
            try:
                await run.follow(place, source, config, context_of(graph, params, stage), tap.control)
            except Exception as error:
                if not tap.is_stopping or not pregel.is_drained(error):
                    raise
                await tap.flush()
                outcome.is_left = True
                return
        await tap.flush()
        if run.stopped:
            await _tell_stop(own, run, await state_of(graph, _config(params, stage, [])))
        else:
            if known is not None and not begun:  # earlier streams have said its messages
                tap.told |= state.texts(known.values)
            await _tell_end(tap, stage, run, asked, standing)
        own.result = state.result_of(run.values)
        outcome.can_go_on = await place.keep(stopped=run.stopped)
    outcome.result, outcome.interrupts, outcome.upcoming = own.result, own.interrupts, own.upcoming
    if run.stopped:
        outcome.finish_reason = "interrupted"


def context_of(graph: Any, params: Mapping[str, Any], stage: Stage) -> dict[str, Any] | None:
    """The run's context: those params, and facts about the caller, that the graph's `context_schema` names.

    None where the graph has no such schema, or nothing of it is given: as LangGraph has it without a context.
    """
    kind = getattr(graph, "context_schema", None)
    if kind is None:
        return None
    if is_dataclass(kind):
        names = {item.name for item in fields(kind)}
    elif hasattr(kind, "model_fields"):
        names = set(kind.model_fields)
    else:  # a TypedDict: it has its bases' members too
        names = set(kind.__annotations__)
    known = {**chain_params.own(params), **trusted(stage)}
    return {name: value for name, value in known.items() if name in names} or None


class Run:
    """What `ainvoke` takes from a graph's stream: the last state that is given out, and all that is asked."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.first: Any = None  # the state as it began
        self.asked: dict[str, Any] = {}  # by the interrupts' ids
        self.stopped = False

    async def follow(
        self, place: Checkpointed, source: Any, config: Any, context: Any = None, control: Any = None
    ) -> None:
        """Run the graph to its end, or to where it stops, or is stopped by `control`."""
        graph = place.graph
        controlled = {} if control is None else {"control": control}
        made: AsyncGenerator[Any, None] = graph.astream(
            source,
            config,
            stream_mode=["updates", "values"],
            output_keys=graph.output_channels,
            durability=place.durability,
            context=context,
            **controlled,
        )
        async with aclosing(made) as parts:
            async for mode, data in parts:
                if mode == "values":
                    self.values = data
                    self.first = data if self.first is None else self.first
                elif isinstance(data, Mapping) and INTERRUPT in data:
                    self.stopped = True  # with nothing that is asked where it is a breakpoint
                    self.ask(data[INTERRUPT])

    def ask(self, interrupts: Iterable[Any]) -> None:
        """What a graph asks, each question once."""
        for one in interrupts:
            schema = getattr(one, "response_schema", None)
            told = {"response_schema": plain(schema)} if isinstance(schema, Mapping) else {}
            self.asked[one.id] = {"id": one.id, "value": plain(one.value)} | told


async def _tell_stop(outcome: Outcome, run: Run, known: Any) -> None:
    """What the graph asks, all of it, and the nodes before which it has stopped.

    Nodes that run side by side ask in any order. The questions have the order of the graph's tasks, by its
    checkpointer, so that they stand in the same order each time.
    """
    order: dict[str, int] = {}
    if known is not None:
        run.ask(one for one in known.interrupts if one.id not in run.asked)
        outcome.upcoming = sorted(set(known.next))
        order = {one.id: place for place, one in enumerate(known.interrupts)}
    outcome.interrupts = sorted(run.asked.values(), key=lambda one: order.get(one["id"], len(order)))


async def _tell_end(tap: NodeTap, stage: Stage, run: Run, asked: Any, standing: Sequence[Event]) -> None:
    """What the end holds that nobody has said: calls for the client, and the result."""
    if stage.answer is not None:
        asked = run.first
    for call in state.unanswered(run.values, run.first):
        await tap.call(call)
    if any(_is_result(event, stage) for event in standing):
        return
    if state.holds_more(run.values, asked, tap) or not tap.has_spoken:
        await state.tell(run.values, tap, stage)


def _is_result(event: Event, stage: Stage) -> bool:
    data = event.data
    return event.type is EventType.CUSTOM and (data["name"], data["stage"]) == ("result", stage.name)


def _is_stopped(graph: Any, known: Any, standing: Sequence[Event]) -> bool:
    """Whether a graph stands at a breakpoint: before a node, or after one that has finished in this step."""
    if not known.next:
        return False
    reached = (known.metadata or {}).get("step", -1)
    just = {
        event.data["name"]
        for event in standing
        if event.type is EventType.STAGE
        and event.data["state"] == "finished"
        and event.data["step"] == reached
    }
    before, after = graph.interrupt_before_nodes, graph.interrupt_after_nodes
    return _names(before, set(known.next)) or _names(after, just)


def _names(given: Any, nodes: set[str]) -> bool:
    """Whether breakpoints, which LangGraph writes as `*` or as a list, name one of these nodes."""
    return bool(nodes) and (given == "*" or not nodes.isdisjoint(given))


async def standing_of(
    graph: Any, params: Mapping[str, Any], stage: Stage, events: Sequence[Event]
) -> set[int]:
    """Which of the published events belong to nodes that the checkpointer knows to be finished."""
    known = await state_of(graph, _config(params, stage, []))
    if known is None or not is_own(known, stage):
        return set()
    if not known.next:
        return set(range(len(events)))
    reached = (known.metadata or {}).get("step", -1)
    names = {task.name for task in known.tasks}
    finished = {n for n in names if all(task.result is not None for task in known.tasks if task.name == n)}
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


def _config(params: Mapping[str, Any], stage: Stage, callbacks: list[Any]) -> Any:
    config = config_of(params, stage, callbacks)
    config["configurable"]["thread_id"] = stage.thread
    config["metadata"] = {"run_id": stage.stream_id}  # of its checkpoints: which run has made them
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

    A stage of several is given them as `input`, beside what the stages before it have made. A graph whose
    state knows none of these names is given the members of the input instead.
    """
    if "messages" not in graph.channels:
        asked = given.get("input") if isinstance(given, Mapping) else None
        is_strange = isinstance(asked, Mapping) and graph.channels.keys().isdisjoint(given)
        return asked if is_strange else given
    if isinstance(given, list | str):
        return {"messages": given}
    asked = given.get("input") if isinstance(given, Mapping) and "messages" not in given else None
    return {**given, "messages": asked} if isinstance(asked, list | str) else given
