"""The text that OpenAI's formats return as a chain's answer, for typical graphs and for any events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.agents.middleware import PIIMiddleware, SummarizationMiddleware
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, RemoveMessage, ToolMessage
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Overwrite

from gateway import protocol
from gateway.formats.openai.chat import Chat, Whole
from gateway.formats.openai.output import Responses
from gateway.protocol import Event
from tests.test_adapter import events, yielding
from tests.test_formats_openai_projection import Tape, chunks, last, output_text
from workers.langchain.state import answers
from workers.langchain.ways import LARGEST, on_the_way

QUESTION = [{"role": "user", "content": "q"}]
SCHEMA = {"title": "Choice", "description": "x", "type": "object", "properties": {}}
STRUCTURED = {"ls_structured_output_format": {"kwargs": {"method": "json_schema"}, "schema": SCHEMA}}


class Full(MessagesState, total=False):
    summary: str
    next: str
    topic: str


class Choice(TypedDict):
    next: str


def says(text: str, **bound: Any) -> Any:
    """Return a model that streams this text, word by word."""
    return GenericFakeChatModel(messages=iter([AIMessage(text)])).bind(**bound)


def speaks(text: str) -> Any:
    async def node(state: Any) -> dict[str, Any]:
        return {"messages": [await says(text).ainvoke("q")]}

    return node


def saves(state: Any) -> dict[str, Any]:
    return {"topic": "saved"}


async def summarises(state: Any) -> dict[str, Any]:
    """Shorten the memory as LangGraph's own example does."""
    text = (await says("summed up").ainvoke("q")).content
    return {"summary": text, "messages": [RemoveMessage(one.id) for one in state["messages"][:-2]]}


def tape_of(told: Sequence[Event], name: str = "s") -> Tape:
    """Return a tape of a complete stream with these events."""
    tape = Tape((name,))
    tape.began(name)
    for event in told:
        tape.add(event)
    tape.finished(name)
    tape.done()
    return tape


def content(tape: Tape) -> tuple[str, list[str]]:
    """Return the answer and its pieces. Each way to request the answer must give the same text."""
    pieces = [
        one["choices"][0]["delta"]["content"]
        for one in chunks(tape.frames(Chat()))[1:]
        if isinstance(one, dict) and "content" in one["choices"][0]["delta"]
    ]
    tape.frames(whole := Whole())
    assert whole.message()["content"] == "".join(pieces)
    frames = tape.frames(Responses())
    deltas = [one.data["delta"] for one in frames if one.event == "response.output_text.delta"]
    assert output_text(last(frames)) == "".join(deltas) == "".join(pieces)
    return "".join(pieces), pieces


async def answer(graph: Any) -> tuple[str, list[str]]:
    told, _ = await events(graph, QUESTION)
    return content(tape_of(told))


def built(*edges: tuple[str, str], schema: Any = Full, **nodes: Any) -> Any:
    builder: Any = StateGraph(schema)
    for name, node in nodes.items():
        builder.add_node(name, node)
    for start, end in edges:
        builder.add_edge(start, end)
    return builder


async def test_of_a_supervisors_graph_the_answer_is_its_own_last_word() -> None:
    """The graph follows the tutorials: the choice is a structured output, and the workers return to it."""
    choices = iter(["researcher", "writer", "FINISH"])

    async def supervisor(state: Full) -> Command[Literal["researcher", "writer", "final"]]:
        choice: Any = next(choices)
        await says(f'{{"next": "{choice}"}}', **STRUCTURED).ainvoke("q")
        return Command(goto="final" if choice == "FINISH" else choice, update={"next": choice})

    async def researcher(state: Full) -> Command[Literal["supervisor"]]:
        said = await says("what was found").ainvoke("q")
        back = AIMessage("Transferring back to supervisor", tool_calls=[{"name": "b", "args": {}, "id": "1"}])
        return Command(
            goto="supervisor", update={"messages": [said, back, ToolMessage("ok", tool_call_id="1")]}
        )

    graph = built(
        (START, "supervisor"), ("writer", "supervisor"), ("final", END),
        supervisor=supervisor, researcher=researcher, writer=speaks("a draft"), final=speaks("so it is"),
    ).compile()  # fmt: skip
    assert await answer(graph) == ("so it is", ["so it is"])  # In one piece: no other node has begun before.


async def test_a_supervisors_own_last_word_streams() -> None:
    async def supervisor(state: Full) -> Command[Literal["worker", "__end__"]]:
        if any(isinstance(one, AIMessage) for one in state["messages"]):
            end: Any = END
            return Command(goto=end, update={"messages": [await says("so it is").ainvoke("q")]})
        return Command(goto="worker")

    graph = built(
        (START, "supervisor"), ("worker", "supervisor"), supervisor=supervisor, worker=speaks("found")
    ).compile()
    assert await answer(graph) == ("so it is", ["so", " ", "it", " ", "is"])


async def test_where_the_supervisor_says_nothing_itself_the_last_workers_word_is_the_answer() -> None:
    choices = iter(["worker", "__end__"])

    async def supervisor(state: Full) -> Command[Literal["worker", "__end__"]]:
        choice: Any = next(choices)
        await says(f'{{"next": "{choice}"}}', **STRUCTURED).ainvoke("q")
        return Command(goto=choice)

    graph = built(
        (START, "supervisor"), ("worker", "supervisor"), supervisor=supervisor, worker=speaks("so it is")
    ).compile()
    assert (await answer(graph))[0] == "so it is"


async def test_a_routers_structured_output_is_none() -> None:
    async def router(state: Full) -> dict[str, Any]:
        return {"next": (await says('{"topic": "cats"}', **STRUCTURED).ainvoke("q")).content}

    builder = built((START, "router"), ("cats", END), router=router, cats=speaks("of cats"))
    builder.add_conditional_edges("router", lambda state: "cats")  # The target of this edge is not known.
    assert await answer(builder.compile()) == ("of cats", ["of", " ", "cats"])


async def test_what_is_said_before_another_node_must_speak_is_none() -> None:
    async def condenses(state: Full) -> dict[str, Any]:
        return {"topic": (await says("the question, alone").ainvoke("q")).content}

    graph = built(
        *((START, "condense"), ("condense", "search"), ("search", "answer"), ("answer", END)),
        condense=condenses, search=saves, answer=speaks("so it is"),
    ).compile()  # fmt: skip
    assert await answer(graph) == ("so it is", ["so", " ", "it", " ", "is"])


@pytest.mark.parametrize("after", ["always", "perhaps"])
async def test_a_summary_behind_the_answer_is_none(after: str) -> None:
    builder = built((START, "talk"), ("summarize", END), talk=speaks("so it is"), summarize=summarises)
    if after == "always":
        builder.add_edge("talk", "summarize")
    else:
        builder.add_conditional_edges("talk", lambda state: "summarize", ["summarize", END])
    assert (await answer(builder.compile()))[0] == "so it is"


async def test_behind_what_is_silent_the_answer_still_streams() -> None:
    graph = built(
        (START, "answer"), ("answer", "save"), ("save", END), answer=speaks("so it is"), save=saves
    ).compile()
    assert await answer(graph) == ("so it is", ["so", " ", "it", " ", "is"])


async def test_an_agents_words_before_it_calls_a_tool_are_part_of_it() -> None:
    calls = [{"name": "look", "args": {}, "id": "c1"}]
    turns = iter([("let me see. ", calls), ("so it is", [])])

    def look() -> str:
        """Look."""
        return "seen"

    async def asks(state: Full) -> dict[str, Any]:
        words, asked = next(turns)
        said = await says(words).ainvoke("q")
        return {"messages": [said.model_copy(update={"tool_calls": asked})]}

    builder = built((START, "model"), ("tools", "model"), model=asks, tools=ToolNode([look]))
    builder.add_conditional_edges("model", lambda s: "tools" if s["messages"][-1].tool_calls else END)
    told, _ = await events(builder.compile(), QUESTION)
    assert not [event for event in told if "aside" in event.data]
    tape = tape_of(told)
    tape.frames(whole := Whole())
    assert whole.message()["content"] == "let me see. so it is"
    assert output_text(last(tape.frames(Responses()))) == "so it is"  # A client adds up all the messages.


async def test_two_that_speak_at_once_do_not_run_into_one_another() -> None:
    graph = built((START, "one"), (START, "two"), one=speaks("a b c"), two=speaks("d e f")).compile()
    told, _ = await events(graph, QUESTION)
    tape = tape_of(told)
    tape.frames(whole := Whole())
    assert whole.message()["content"] in ("a b cd e f", "d e fa b c")


async def test_a_structured_output_alone_is_told_after_all() -> None:
    async def router(state: Any) -> dict[str, Any]:
        return {"next": (await says('{"topic": "cats"}', **STRUCTURED).ainvoke("q")).content}

    graph = built((START, "router"), router=router, schema=Choice).compile()
    told, _ = await events(graph, {"next": ""})
    assert content(tape_of(told))[0] == '{"topic": "cats"}'


async def test_of_a_sequence_and_of_a_function_all_is_the_answer() -> None:
    told, _ = await events(yielding("a", AIMessage("b")))
    assert content(tape_of(told)) == ("ab", ["a", "b"])

    @entrypoint()
    async def flow(asked: Any) -> str:
        return str((await says("so it is").ainvoke("q")).content)

    assert (await answer(flow))[0] == "so it is"


def silent(state: Any) -> dict[str, Any]:
    return {}


WAYS: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "one after the other": (
        lambda: built((START, "a"), ("a", "b"), ("b", END), a=speaks("a"), b=speaks("b")),
        {"a"},
    ),
    "past a silent one": (
        lambda: built((START, "a"), ("a", "b"), ("b", END), a=speaks("a"), b=silent),
        set(),
    ),
    "to one that is not silent behind one that is": (
        lambda: built((START, "a"), ("a", "b"), ("b", "c"), a=speaks("a"), b=silent, c=speaks("c")),
        {"a", "b"},
    ),
    "a circle": (
        lambda: built((START, "a"), ("a", "b"), ("b", "a"), a=speaks("a"), b=speaks("b")),
        {"a", "b"},
    ),
    "a join": (
        lambda: built((START, "a"), (START, "b"), a=speaks("a"), b=silent, c=speaks("c")).add_edge(
            ["a", "b"], "c"
        ),
        {"a", "b"},
    ),
    "two ways at once, one of them silent": (
        lambda: built((START, "a"), ("a", "b"), ("a", "c"), a=speaks("a"), b=speaks("b"), c=silent),
        {"a"},
    ),
}


@pytest.mark.parametrize(("make", "wanted"), WAYS.values(), ids=WAYS)
def test_which_nodes_are_on_the_way(make: Callable[[], Any], wanted: set[str]) -> None:
    assert on_the_way(make().compile()) == wanted


@pytest.mark.parametrize(
    ("ends", "is_on_the_way"), [(["b"], True), (["b", END], False), (["s"], False), (None, False)]
)
def test_a_choice_whose_ends_are_known_leads_on_or_not(ends: Any, is_on_the_way: bool) -> None:
    builder = built((START, "a"), ("b", END), ("s", END), a=speaks("a"), b=speaks("b"), s=silent)
    builder.add_conditional_edges("a", lambda state: "b", ends)
    assert ("a" in on_the_way(builder.compile())) is is_on_the_way


def test_a_subgraph_need_not_hand_over_and_a_function_that_says_so_does() -> None:
    inner = built((START, "x"), x=speaks("x")).compile()
    builder = built((START, "a"), ("b", END), b=speaks("b"))
    builder.add_node("a", inner, destinations=("b",))
    assert on_the_way(builder.compile()) == set()

    def hands_over(state: Full) -> Command[Literal["b"]]:
        return Command(goto="b")

    assert on_the_way(built((START, "a"), a=hands_over, b=speaks("b")).compile()) == {"a"}


def test_an_agents_middleware_does_not_make_its_model_one_on_the_way() -> None:
    class Bound(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **given: Any) -> Any:
            return self

    def look() -> str:
        """Look."""
        return "seen"

    model = Bound(messages=iter([]))
    assert on_the_way(create_agent(model, [look])) == {"tools"}
    middleware = [PIIMiddleware("email"), SummarizationMiddleware(model=model, trigger=("messages", 9))]
    agent = create_agent(model, [look], middleware=middleware)
    assert on_the_way(agent) == {"SummarizationMiddleware.before_model"}  # PII's hook may jump to the end.


def test_a_function_that_only_looks_at_messages_is_silent() -> None:
    def looks(state: Full) -> dict[str, Any]:
        return {"topic": str(isinstance(state["messages"][-1], AIMessage))}

    def makes(state: Full) -> dict[str, Any]:
        return {"messages": [AIMessage("made")]}

    for behind, wanted in ((looks, set()), (makes, {"a"})):
        graph = built((START, "a"), ("a", "b"), ("b", END), a=speaks("a"), b=behind).compile()
        assert on_the_way(graph) == wanted


def test_of_a_very_large_graph_and_of_a_flow_nothing_is_known() -> None:
    names = [f"n{number}" for number in range(LARGEST + 1)]
    edges = list(zip([START, *names], names, strict=False))
    large = built(*edges, **{name: speaks("x") for name in names}).compile()
    assert on_the_way(large) == set()

    @entrypoint()
    def flow(asked: Any) -> str:
        return "x"

    assert on_the_way(flow) == set()


ANSWER = AIMessage("x")


@pytest.mark.parametrize(
    ("outputs", "is_one"),
    [
        (None, False),
        ({}, False),
        ({"messages": []}, False),
        ({"messages": [RemoveMessage("1")], "summary": ANSWER}, False),
        ({"messages": ANSWER}, True),
        ({"messages": [("user", "x"), ("ai", "x")]}, True),
        ({"messages": [{"role": "assistant", "content": "x"}]}, True),
        ({"messages": [{"role": "user", "content": "x"}]}, False),
        ({"messages": Overwrite([ANSWER])}, True),
        (Command(update={"messages": [ANSWER]}), True),
        (Command(update=[("messages", [ANSWER])]), True),
        (Command(goto="x"), False),
        ([Command(goto="x"), {"messages": [ANSWER]}], True),
        (ANSWER, True),
        ([ANSWER], True),
        ("text", False),
    ],
)
def test_whether_a_node_returns_a_message_of_the_assistants(outputs: Any, is_one: bool) -> None:
    assert answers(outputs) is is_one


def node(name: str, run: int, *, finished: bool = False, aside: bool = False) -> Event:
    return protocol.node(name, run=run, index=0, count=1, parent="s", step=1, finished=finished, aside=aside)


def text(delta: str, name: str, run: int = 1, aside: str = "") -> Event:
    event = protocol.text(delta, deployment="d", stage=name, run=run)
    event.data.update({"aside": aside} if aside else {})
    return event


def test_after_a_reset_another_node_may_be_the_one_that_speaks() -> None:
    tape = Tape(("s",))
    began = tape.began("s")
    tape.add(node("a", 1))
    tape.add(text("void", "a"))
    tape.reset(began, "s")
    tape.add(node("b", 1))
    tape.add(text("x", "b"))
    tape.add(text("y", "b"))
    tape.add(node("b", 1, finished=True))
    tape.finished("s")
    tape.done()
    tape.frames(whole := Whole())
    assert whole.message()["content"] == "xy"
    assert output_text(last(tape.frames(Responses()))) == "xy"


RUNS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(["", "", "structured_output", "hand_over", "on_the_way"]),
        st.lists(st.text(max_size=3), min_size=1, max_size=3),
        st.sampled_from(["kept", "aside", "open"]),
    ),
    max_size=6,
)


@given(RUNS, st.booleans())
def test_whatever_is_said_streamed_and_whole_are_the_same(runs: Any, has_result: bool) -> None:
    tape, told = Tape(("s",)), []
    tape.began("s")
    for number, (name, aside, deltas, _) in enumerate(runs, 1):
        tape.add(node(name, number))
        for delta in filter(None, deltas):
            tape.add(text(delta, name, number, aside))
            told.append(aside)
    for number, (name, _, _, end) in enumerate(runs, 1):
        if end != "open":
            tape.add(node(name, number, finished=True, aside=end == "aside"))
    if has_result:
        tape.add(protocol.custom("result", {"a": 1}, stage="s"))
    tape.finished("s")
    tape.done()
    pieces = [
        one["choices"][0]["delta"].get("content", "")
        for one in chunks(tape.frames(Chat()))
        if isinstance(one, dict)
    ]
    tape.frames(whole := Whole())
    said = whole.message()["content"]
    assert said == "".join(pieces)
    assert bool(said) == bool(told or has_result)
    frames = tape.frames(Responses())
    final = output_text(last(frames))
    assert bool(final) == bool(said)
    assert final in said
    assert {one.data["output_index"] for one in frames if one.event == "response.output_item.added"} == set(
        range(sum(one.event == "response.output_item.added" for one in frames))
    )
