"""The agent streaming protocol as a function of a log, without I/O: filters, namespaces, event numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.formats.langgraph.protocol_filter import CHANNELS, EventFilter, first_of_turn, parse_filter
from gateway.formats.langgraph.protocol_projection import ThreadRun
from gateway.formats.langgraph.protocol_tree import Tree
from gateway.formats.langgraph.protocol_values import state
from gateway.protocol import Event, EventType, events, steps
from gateway.protocol.errors import Malformed

ALL = EventFilter(frozenset(CHANNELS))
ASKED = {"type": "human", "content": "q", "id": "m-1"}
CALL = {"name": "add", "args": {"a": 1}, "id": "call_1"}


def graph(kind: str, **told: Any) -> Event:
    return steps.graph(kind, stage="c", run=1, **told)


def message(number: int, state: str, **told: Any) -> Event:
    own = {"id": f"m-{number}", **told.pop("own", {})}
    return graph(steps.MESSAGE, number=number, state=state, own=own, node="model", step=1, **told)


def text(delta: str, number: int) -> Event:
    event = events.text(delta, deployment="d", stage="model", run=1)
    return Event(event.type, {**event.data, "number": number})


def begun() -> list[Event]:
    first = events.stage("c", run=1, index=0, count=1)
    start = events.start("s", "c", ["c"], "2026-01-01T00:00:00Z")
    return [start, Event(first.type, {**first.data, "graph": True})]


def done(**more: Any) -> Event:
    return events.done(finish_reason="stop", usage={}, attempts=1, duration_ms=1, **more)


def told(log: list[Event], wanted: EventFilter = ALL, turn: int = 0) -> list[dict[str, Any]]:
    """Return the events that a reader of this log receives. Each event of the log has 100 bytes."""
    run = ThreadRun("s", "t", {"messages": [ASKED]}, turn, 7, wanted)
    frames = [frame for at, one in enumerate(log) for frame in run.take(f"{at * 100}-beef", one)]
    events = []
    for frame in frames:
        number, method, data = frame.decode().rstrip("\n").split("\n")
        one = json.loads(data.removeprefix("data: "))
        assert (number, method) == (f"id: {one['seq']}", f"event: {one['method']}")
        events.append(one)
    return events


def short(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (one["method"], tuple(one["params"]["namespace"]), one["params"]["data"].get("event"))
        for one in found
    ]


def test_a_graphs_messages_tools_and_states() -> None:
    answer = {"type": "ai", "content": "one two"}
    whole = {"type": "ai", "content": "", "tool_calls": [{"name": "add", "args": {"a": 1}}]}
    log = [
        *begun(),
        graph(steps.VALUES, changes={"whole": {"messages": []}}),
        message(1, "finished", message=whole, own={"calls": ["call_1"]}, shown=True),
        events.tool("add", call_id="call_1", stage="tools", state="started", said={"a": 1}),
        events.tool("add", call_id="call_1", stage="tools", state="finished", said="3"),
        message(2, "started"),
        text("one ", 2),
        text("two", 2),
        message(2, "finished", message=answer, own={"usage_metadata": {"total_tokens": 3}}, shown=True),
        graph(steps.UPDATES, data={"model": {"messages": [{"$message": 2}]}}),
        graph(steps.VALUES, changes={"members": {"messages": {"to": [{"$message": 1}, {"$message": 2}]}}}),
        done(),
    ]
    found = told(log)
    tool = ("tools:call_1",)
    blocks = ["content-block-start", "content-block-delta", "content-block-finish"]
    assert short(found) == [
        ("lifecycle", (), "running"),
        ("values", (), None),
        *[("messages", (), event) for event in ("message-start", *blocks, "message-finish")],
        ("tools", (), "tool-started"),
        ("tools", (), "tool-finished"),
        *[("messages", tool, event) for event in ("message-start", *blocks, "message-finish")],
        *[("messages", (), event) for event in ("message-start", *blocks[:2], *blocks[1:])],
        ("messages", (), "message-finish"),
        ("updates", (), None),
        ("values", (), None),
        ("lifecycle", (), "completed"),
    ]
    call = found[5]["params"]["data"]["content"]
    assert call == {"type": "tool_call", **CALL}
    finish = [one["params"]["data"] for one in found if one["params"]["data"].get("usage")]
    assert [one["usage"] for one in finish] == [{"total_tokens": 3}]
    last = found[-2]["params"]["data"]["messages"]
    assert [one["id"] for one in last] == ["m-1", "m-2"]
    assert last[1]["content"] == [{"type": "text", "text": "one two", "index": 0}]
    ids = [one["event_id"] for one in found]
    assert len(set(ids)) == len(ids)
    assert (ids[0], ids[-1]) == ("synth:s:lc||running", "synth:s:lc||completed")


def test_numbers_are_the_same_for_every_filter_and_grow_over_the_turns() -> None:
    log = [
        *begun(),
        graph(steps.VALUES, changes={"whole": {"a": 1}}),
        graph(steps.VALUES, ns="inner:1", changes={"whole": {"a": 2}}),
        events.custom("custom", {"x": 1}, stage="c"),
        events.custom("progress", {"x": 2}, stage="c"),
        graph(steps.UPDATES, data={"inner": {"a": 3}}),
        done(),
    ]
    whole = told(log)
    numbers = [one["seq"] for one in whole]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 1
    for channel in ("values", "lifecycle", "updates", "custom"):
        some = told(log, EventFilter(frozenset({channel})))
        assert some == [one for one in whole if one["method"] == channel]
    for since in numbers:
        assert told(log, EventFilter(ALL.channels, since=since)) == [
            one for one in whole if one["seq"] > since
        ]
    inner = EventFilter(ALL.channels, namespaces=(("inner",),))
    assert told(log, inner) == [one for one in whole if one["params"]["namespace"]]
    named = EventFilter(frozenset({"custom:progress"}))
    assert [one["params"]["data"] for one in told(log, named)] == [{"name": "progress", "payload": {"x": 2}}]
    later = told(log, turn=3)
    assert [one["seq"] - first_of_turn(3) for one in later] == numbers
    assert later[-1]["seq"] < 2**53


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (done(), "completed"),
        (done(interrupts=[{"id": "i", "value": "why?"}]), "interrupted"),
        (events.failed("chain_error", "it broke", retryable=False), "failed"),
        (Event(EventType.CANCELLED, {}), "interrupted"),
    ],
)
def test_a_subgraph_ends_with_its_run(end: Event, how: str) -> None:
    inner = graph(steps.VALUES, ns="inner:1|deep:2", changes={"whole": {"a": 2}})
    found = told([*begun(), inner, end], EventFilter(frozenset({"lifecycle", "input"})))
    lives = [one for one in short(found) if one[0] == "lifecycle"]
    assert lives == [
        ("lifecycle", (), "running"),
        ("lifecycle", ("inner:1",), "started"),
        ("lifecycle", ("inner:1", "deep:2"), "started"),
        ("lifecycle", ("inner:1", "deep:2"), how),
        ("lifecycle", ("inner:1",), how),
        ("lifecycle", (), how),
    ]
    asked = [one["params"]["data"] for one in found if one["method"] == "input.requested"]
    assert asked == ([{"interrupt_id": "i", "payload": "why?"}] if "interrupts" in end.data else [])


def test_a_message_that_is_said_again_is_another_one() -> None:
    log = [
        *begun(),
        message(1, "started"),
        text("a", 1),
        events.reset(attempt=2, stage_name="c", discard_after="100-beef", reason="worker_lost"),
        message(1, "started", own={"id": "again"}),
        text("b", 1),
        message(1, "finished", message={"type": "ai", "content": "b"}, own={"id": "again"}, shown=True),
        done(),
    ]
    said = [one["params"]["data"] for one in told(log, EventFilter(frozenset({"messages"})))]
    assert [one["id"] for one in said if one["event"] == "message-start"] == ["m-1", "again"]
    assert [one["message_id"] for one in said if one["event"] == "error"] == ["m-1"]
    assert said[-1] == {"event": "message-finish", "run_id": "again", "message_id": "again", "metadata": {}}


def test_messages_that_are_said_at_once_can_be_told_apart() -> None:
    log = [*begun(), message(1, "started"), message(2, "started"), text("a", 1), text("b", 2), text("c", 1)]
    said = [one["params"]["data"] for one in told(log, EventFilter(frozenset({"messages"})))]
    pieces = [(one["message_id"], one["delta"]["text"]) for one in said if "delta" in one]
    assert pieces == [("m-1", "a"), ("m-2", "b"), ("m-1", "c")]


def test_the_tree_of_a_run() -> None:
    tree = Tree("c")
    for namespace in (("a:1",), ("a:1", "b:2"), ("a:3",)):
        list(tree.enter(namespace))
    # Two namespaces belong to the node a. The older one is left.
    assert [here for here, _ in tree.leave((), "a")] == [("a:1",)]
    assert tree.told() == {
        "namespace": [],
        "status": "running",
        "graph_name": "c",
        "children": [
            {
                "namespace": ["a:1"],
                "status": "completed",
                "graph_name": "a",
                "children": [{"namespace": ["a:1", "b:2"], "status": "started", "graph_name": "b"}],
            },
            {"namespace": ["a:3"], "status": "started", "graph_name": "a"},
        ],
    }


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"channels": []},
        {"channels": "values"},
        {"channels": ["values", "nonsense"]},
        {"channels": ["custom:"]},
        {"channels": [1]},
        {"channels": ["values"] * 201},
        {"channels": ["values"], "namespaces": [["a"]] * 201},
    ],
)
def test_what_nobody_can_subscribe_to(body: Any) -> None:
    with pytest.raises(Malformed):
        parse_filter(body)


def test_what_langgraphs_server_passes_over_is_passed_over() -> None:
    body = {"channels": ["values"], "since": True, "depth": False, "namespaces": [[1], "a", ["b"]]}
    assert parse_filter(body) == EventFilter(frozenset({"values"}), (("b",),))
    assert parse_filter({"channels": ["values"], "since": 5}).since == 5
    assert parse_filter({"channels": ["values"], "since": 5}, "9").since == 9
    with pytest.raises(Malformed):
        parse_filter({"channels": ["values"]}, "x")


def test_depth_counts_from_the_namespace_that_was_asked_for() -> None:
    wanted = EventFilter(frozenset({"values"}), namespaces=((),), depth=1)
    assert [wanted.wants("values", space) for space in ((), ("a:1",), ("a:1", "b:1"))] == [True, True, False]
    exact = EventFilter(frozenset({"values"}), namespaces=(("a:1",),))
    assert [exact.wants("values", space) for space in (("a:1", "b"), ("a:2",))] == [True, False]


def test_a_state_has_its_messages_wherever_they_are() -> None:
    one: dict[str, Any] = {"type": "ai", "content": "x", "id": "m"}
    one |= {"additional_kwargs": {}, "usage_metadata": None}
    value = {"deep": [{"one": one}], "__interrupt__": [1], "type": "car"}
    assert state(value) == {"deep": [{"one": {"type": "ai", "content": "x", "id": "m"}}], "type": "car"}
