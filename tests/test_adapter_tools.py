"""Tool calls: a tool's answer, the events from inside a tool, and calls that the client must execute."""

from __future__ import annotations

import operator
from typing import Annotated, Any

import pytest
from langchain.agents import AgentState, create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain.tools import ToolRuntime
from langchain_core.callbacks import adispatch_custom_event
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic import BaseModel

from gateway.protocol.fold import Fold
from tests.support.adapted import Scripted, again, calls, graph_of, kinds, result, says, texts, told
from tests.test_adapter_mappings import yielding
from workers.langchain.calls import Call


class Named(AgentState[Any]):
    user: str
    log: Annotated[list[str], operator.add]


def message_for(call_id: str) -> ToolMessage:
    return ToolMessage("done", tool_call_id=call_id)


@pytest.mark.parametrize(
    "update",
    [
        lambda call_id: {
            "user": "z",
            "messages": [ToolMessage("other", tool_call_id="x"), message_for(call_id)],
        },
        lambda call_id: [("user", "z"), ("messages", [message_for(call_id)])],
    ],
)
async def test_a_tool_that_returns_a_command_answers_by_its_message(update: Any) -> None:
    """The answer must not be the repr of the Command, which shows history and private state."""

    @tool
    async def set_user(runtime: ToolRuntime) -> Command[Any]:
        """Set."""
        written = update(runtime.tool_call_id)
        return Command(update=dict(written) if isinstance(written, list) else written)

    class Given(Named):
        pass

    model = Scripted(answers=[calls("set_user"), AIMessage("end")])
    events, _ = await told(create_agent(model, [set_user], state_schema=Given))
    assert [(data["state"], data.get("output")) for data in kinds(events, "tool")] == [
        ("started", None),
        ("finished", "done"),
    ]
    assert result(events) == {"user": "z", "log": []}


async def test_a_command_without_a_message_answers_nothing() -> None:
    @tool
    def hands_over() -> Command[Any]:
        """Hand over."""
        return Command(update={"secret": "x"})

    made: Runnable[Any, Any] = RunnableLambda(lambda _: {}) | hands_over | RunnableLambda(lambda _: "end")
    events, _ = await told(made)
    assert kinds(events, "tool")[-1]["output"] is None
    assert "secret" not in str(events)


def boss(call_id: str = "c1") -> Any:
    """Return an agent whose tool asks a second agent. The second agent calls a tool itself."""

    @tool
    async def look(what: str) -> str:
        """Look."""
        get_stream_writer()({"looked": what})
        await adispatch_custom_event("seen", what)
        return f"saw {what}"

    expert: Any = create_agent(
        Scripted(answers=[calls("look", "i1", what="x"), AIMessage("so it is")]), [look]
    )

    @tool
    async def ask(query: str) -> str:
        """Ask the expert."""
        get_stream_writer()("asking")
        return str((await expert.ainvoke({"messages": [("user", query)]}))["messages"][-1].text)

    model = Scripted(answers=[calls("ask", call_id, query="q"), AIMessage("It says so")])
    return create_agent(model, [ask])


async def test_what_happens_below_a_tool_is_marked_and_no_text_of_the_answer() -> None:
    events, outcome = await told(boss())
    assert texts(events) == {("model",): "It says so"}
    assert outcome.result == "It says so"
    tools = [(data["name"], data["state"], data.get("within")) for data in kinds(events, "tool")]
    assert tools == [
        ("ask", "started", None),
        ("look", "started", "c1"),
        ("look", "finished", "c1"),
        ("ask", "finished", None),
    ]
    nested = kinds(events, "nested")
    assert {(data["within"], data["stage"], *data["path"]) for data in nested} == {("c1", "tools", "model")}
    assert "".join(data["delta"] for data in nested) == "so it is"
    written = [(data["name"], data["data"], data.get("within")) for data in kinds(events, "custom")]
    assert written == [("custom", "asking", "c1"), ("custom", {"looked": "x"}, "i1"), ("seen", "x", "i1")]
    assert [data["name"] for data in kinds(events, "stage")] == [
        name for name in ("model", "tools", "model") for _ in "+-"
    ]


async def test_a_tools_model_has_no_say_in_the_finish_reason_and_is_paid_for() -> None:
    said = AIMessage("inner", response_metadata={"finish_reason": "length"})

    @tool
    async def ask(query: str) -> str:
        """Ask."""
        return str((await Scripted(answers=[said], disable_streaming=True).ainvoke(query)).text)

    model = Scripted(answers=[calls("ask", query="q"), AIMessage("end")])
    _, outcome = await told(create_agent(model, [ask]))
    assert outcome.finish_reason == "stop"


async def test_a_structured_response_is_the_result_beside_the_text() -> None:
    class Contact(BaseModel):
        name: str
        content: str

    model = Scripted(answers=[calls("Contact", name="Ada", content="c")])
    events, _ = await told(create_agent(model, [], response_format=ToolStrategy(Contact)))
    assert result(events) == {"structured_response": {"name": "Ada", "content": "c"}}


@pytest.mark.parametrize("shape", ["model", "sequence", "graph"])
async def test_calls_for_the_client_are_told_each_by_an_id(shape: str) -> None:
    asked = [{"name": "a", "args": {"n": 1}, "id": None}, {"name": "a", "args": {"n": 2}, "id": None}]
    answer = AIMessage("well", tool_calls=asked)
    model = Scripted(answers=[answer])
    made: Any = model
    if shape == "sequence":
        made = RunnableLambda(lambda given: given) | RunnableLambda(lambda _: answer)
    elif shape == "graph":

        async def node(state: MessagesState) -> dict[str, Any]:
            return {"messages": [await model.ainvoke("q")]}

        builder: Any = StateGraph(MessagesState)
        builder.add_node("node", node)
        builder.add_edge(START, "node")
        made = builder.compile()
    events, _ = await told(made)
    assert [(data["call_id"], data["input"]) for data in kinds(events, "tool")] == [
        ("call_1", {"n": 1}),
        ("call_2", {"n": 2}),
    ]


@pytest.mark.parametrize(
    "pieces",
    [
        [("look", '{"a"', "c1"), (None, ": 1}", None), ("look", '{"a": 2}', "c2")],
        [("look", '{"a"', "c1"), ("look", ": 1}", "c1"), ("look", '{"a": 2}', "c2")],
        [("look", '{"a": 1}', "c1"), ("look", '{"a": 2}', "c2")],
        [("look", '{"a": 1}', None), ("look", '{"a": 2}', None)],
    ],
)
async def test_pieces_of_calls_without_an_index_are_put_together(pieces: list[Any]) -> None:
    chunks = [
        AIMessageChunk(
            content="", tool_call_chunks=[tool_call_chunk(name=name, args=args, id=call_id, index=None)]
        )
        for name, args, call_id in pieces
    ]
    events, _ = await told(yielding(*chunks))
    assert [data["input"] for data in kinds(events, "tool")] == [{"a": 1}, {"a": 2}]
    assert len({data["call_id"] for data in kinds(events, "tool")}) == 2
    call = Call()
    for chunk in chunks:
        call.take(chunk)
    whole = chunks[0] + chunks[1:]
    call.close(whole)
    assert [one["args"] for one in whole.tool_calls] == [{"a": 1}, {"a": 2}]
    assert whole.invalid_tool_calls == []


async def test_a_stage_that_ends_in_calls_hands_them_on() -> None:
    """The stage passes the calls on as a message in the form that LangChain reads."""
    from langchain_core.messages import convert_to_messages

    _, outcome = await told(Scripted(answers=[calls("look", "c1", "well", a=1)]))
    [message] = convert_to_messages([outcome.result])
    assert isinstance(message, AIMessage)
    assert (message.text, message.tool_calls[0]["args"]) == ("well", {"a": 1})


async def test_every_form_survives_a_death_without_a_reset() -> None:
    ids = iter("abcdefghijklmnopqrstuvwxyz" * 20)
    await again(lambda: boss(next(ids)))


BLOCK = {"type": "refusal", "refusal": "I will not"}


@pytest.mark.parametrize("block", [BLOCK, {"type": "non_standard", "value": BLOCK}])
async def test_a_refusal_is_told_by_its_words_and_is_the_finish_reason(block: Any) -> None:
    end = AIMessageChunk(content="", response_metadata={"finish_reason": "stop"})
    whole: Runnable[Any, Any] = says("x") | RunnableLambda(lambda _: AIMessage([block]))

    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage([block])]}

    streamed, graph = yielding(AIMessageChunk(content=[block]), end), graph_of(MessagesState, node)
    for made, finish in (
        (streamed, "refusal"),
        (whole, "refusal"),
        (graph, "stop"),
    ):  # These chains ask no model.
        events, outcome = await told(made)
        assert [(data["delta"], texts(events)) for data in kinds(events, "refusal")] == [("I will not", {})]
        fold = Fold()
        for event in events:
            fold.feed("0-beef", event)
        assert fold.text == "I will not"
        assert outcome.finish_reason == finish


@pytest.mark.parametrize("field", ["annotations", "citations"])
async def test_what_a_model_cites_is_told_after_its_text(field: str) -> None:
    cited = {"type": "url_citation", "url": "https://a.example", "start_index": 0}
    block = {"type": "text", "text": "so", field: [cited]}

    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage([block])]}

    for made in (yielding(AIMessageChunk(content=[block])), graph_of(MessagesState, node)):
        events, _ = await told(made)
        said = [event.type for event in events if event.type != "stage"]
        assert said == ["", "citations"]
        assert kinds(events, "citations")[0]["citations"] == [cited]
