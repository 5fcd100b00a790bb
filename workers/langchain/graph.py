"""Convert a compiled LangGraph graph to events. Its nodes are stages within the chain's stage.

All output of the nodes comes from callbacks, in the order in which it happens (`nodes`). The graph's own
stream provides what `ainvoke` takes from it: the state at the end, and the questions. This module never
imports LangGraph: the code that made the graph has done it. If a graph has its own checkpointer, the next
attempt continues from it. The events of its finished nodes stay valid and are not emitted again. For this, a
checkpoint is written before the next step begins.
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
MOST_STEPS = 10_000  # most steps a client may set, if the graph has no limit of its own


async def stream_graph(
    graph: Any,
    given: Any,
    params: Mapping[str, Any],
    emit: Emit,
    stage: Stage,
    outcome: Outcome,
    standing: Sequence[Event] = (),
) -> None:
    """Run a graph, or continue from its checkpoint. `standing` are the events that it will not emit again."""
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
                True  # an earlier attempt has already stopped here; running again would pass the breakpoint
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
            if known is not None and not begun:  # earlier streams have already emitted its messages
                tap.told |= state.texts(known.values)
            await _tell_end(tap, stage, run, asked, standing)
        own.result = state.result_of(run.values)
        outcome.can_go_on = await place.keep(stopped=run.stopped)
    outcome.result, outcome.interrupts, outcome.upcoming = own.result, own.interrupts, own.upcoming
    if run.stopped:
        outcome.finish_reason = "interrupted"


def context_of(graph: Any, params: Mapping[str, Any], stage: Stage) -> dict[str, Any] | None:
    """Return the run's context: the params and caller facts that the graph's `context_schema` names.

    Return None if the graph has no such schema, or if none of its names is given. LangGraph then runs without
    a context.
    """
    kind = getattr(graph, "context_schema", None)
    if kind is None:
        return None
    if is_dataclass(kind):
        names = {item.name for item in fields(kind)}
    elif hasattr(kind, "model_fields"):
        names = set(kind.model_fields)
    else:  # a TypedDict: its annotations include those of its bases
        names = set(kind.__annotations__)
    known = {**chain_params.own(params), **trusted(stage)}
    return {name: value for name, value in known.items() if name in names} or None


class Run:
    """Collects what `ainvoke` takes from a graph's stream: the last state, and all questions."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.first: Any = None  # the state at the beginning
        self.asked: dict[str, Any] = {}  # interrupt id -> question
        self.stopped = False

    async def follow(
        self, place: Checkpointed, source: Any, config: Any, context: Any = None, control: Any = None
    ) -> None:
        """Run the graph until it ends, stops to ask, or is stopped by `control`."""
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
                    self.stopped = True  # at a breakpoint there are no questions
                    self.ask(data[INTERRUPT])

    def ask(self, interrupts: Iterable[Any]) -> None:
        """Add the graph's questions, each one once."""
        for one in interrupts:
            schema = getattr(one, "response_schema", None)
            told = {"response_schema": plain(schema)} if isinstance(schema, Mapping) else {}
            self.asked[one.id] = {"id": one.id, "value": plain(one.value)} | told


async def _tell_stop(outcome: Outcome, run: Run, known: Any) -> None:
    """Set in the outcome all questions of the graph, and the nodes before which it has stopped.

    Parallel nodes ask in any order. So the questions get the order of the graph's tasks in its checkpointer,
    which is the same each time.
    """
    order: dict[str, int] = {}
    if known is not None:
        run.ask(one for one in known.interrupts if one.id not in run.asked)
        outcome.upcoming = sorted(set(known.next))
        order = {one.id: place for place, one in enumerate(known.interrupts)}
    outcome.interrupts = sorted(run.asked.values(), key=lambda one: order.get(one["id"], len(order)))


async def _tell_end(tap: NodeTap, stage: Stage, run: Run, asked: Any, standing: Sequence[Event]) -> None:
    """Emit what was not emitted yet at the end: tool calls for the client, and the result."""
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
    """Return whether a graph is at a breakpoint: before a node, or after one that finished in this step."""
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
    """Return whether breakpoints name one of these nodes. LangGraph writes them as `*` or as a list."""
    return bool(nodes) and (given == "*" or not nodes.isdisjoint(given))


async def standing_of(
    graph: Any, params: Mapping[str, Any], stage: Stage, events: Sequence[Event]
) -> set[int]:
    """Return the numbers of the published events whose nodes are finished in the checkpointer."""
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
    last = max(kept, default=-1)  # An event without a node stays valid if a later event stays valid.
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
    config["metadata"] = {"run_id": stage.stream_id}  # metadata of its checkpoints: the run that made them
    return config


def _most_steps(graph: Any, params: Mapping[str, Any]) -> int | None:
    """Return the client's `recursion_limit`, but not more than the graph's own.

    None: the client has set none.
    """
    asked = params.get("recursion_limit")
    if type(asked) is not int or asked < 1:
        return None
    own = (graph.config or {}).get("recursion_limit", MOST_STEPS)
    return min(asked, int(own))


def _input(graph: Any, given: Any) -> Any:
    """Return the input of a graph.

    If the graph keeps messages, a conversation or a text becomes its messages. In a chain with several
    stages, the question is in `input`, next to the results of the earlier stages. If the graph's state has
    none of these names, it gets the members of `input` instead.
    """
    if "messages" not in graph.channels:
        asked = given.get("input") if isinstance(given, Mapping) else None
        is_strange = isinstance(asked, Mapping) and graph.channels.keys().isdisjoint(given)
        return asked if is_strange else given
    if isinstance(given, list | str):
        return {"messages": given}
    asked = given.get("input") if isinstance(given, Mapping) and "messages" not in given else None
    return {**given, "messages": asked} if isinstance(asked, list | str) else given
