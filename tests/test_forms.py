"""The form in which a chain receives a question sent as `user` or `messages`: the table in docs/chains.md."""

from __future__ import annotations

import json
import logging
import operator
import re
import warnings
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import tool
from langgraph.graph import MessagesState
from pydantic import BaseModel

from gateway.protocol.errors import Invalid, WrongChain
from gateway.streams.forms import Form, Kind, form_of, shape_of
from gateway.streams.input_schemas import Inputs
from gateway.streams.start import parse_start
from tests.support.adapted import graph_of, says
from tests.support.jobs import Jobs, body
from workers.chains.asked import ASKED
from workers.chains.registry import chain
from workers.chains.taking import asked, forms_of
from workers.stages import Each

USER: list[dict[str, Any]] = [{"role": "user", "content": "rain"}]
SAID = [HumanMessage("rain")]
BEFORE: list[dict[str, Any]] = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hi"},
]
TALK: list[dict[str, Any]] = [
    *BEFORE,
    {"role": "user", "content": [{"type": "text", "text": "ra"}, {"type": "text", "text": "in"}]},
]
MODEL = says("yes")


def of(template: str) -> Any:
    return ChatPromptTemplate.from_template(template)


def messages_of(*messages: Any) -> Any:
    return ChatPromptTemplate.from_messages(list(messages))


class Found(BaseRetriever):
    """A retriever that returns the query as its only document."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(query)]


@tool
def look(place: str) -> str:
    """Look at a place."""
    return place


class Topic(TypedDict):
    topic: str


class Joke(TypedDict):
    topic: str
    joke: str


class Answer(TypedDict):
    question: str
    context: list[str]
    answer: str


class Summed(MessagesState):
    summary: str


class Added(TypedDict):
    messages: Annotated[list[AnyMessage], operator.add]


class Modelled(BaseModel):
    question: str
    messages: list[Any] = []


def never(session_id: str) -> Any:
    raise AssertionError(session_id)


def node(state: Any) -> Any:
    return {}


def remembering(**keys: Any) -> Any:
    """Return a chain that keeps the history, as the tutorials before LangGraph do."""
    made = messages_of(MessagesPlaceholder("history"), ("human", "{q}")) | MODEL if keys else MODEL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RunnableWithMessageHistory(made, never, **keys)


def text(given: str) -> str:
    return given


def objects(given: list[BaseMessage]) -> Any:
    return given


def dicts(given: list[dict[str, Any]]) -> Any:
    return given


def mapped(given: dict[str, Any]) -> Any:
    return given


def typed(given: Topic) -> Any:
    return given


def of_topic(given: Any) -> Any:
    return given["topic"]


def of_input(given: Any) -> Any:
    return given["input"]


def with_q(given: Any) -> Any:
    return "x" in given["q"]


def several(given: Any) -> Any:
    return given["city"] + given["days"]


# Each of the tutorials' forms, and its input for "rain".
CHAINS: dict[str, tuple[Any, Any]] = {
    "a prompt with one variable": (of("{topic}") | MODEL, {"topic": "rain"}),
    "a prompt that names input": (
        messages_of(("system", "x"), ("human", "{input}")) | MODEL,
        {"input": "rain"},
    ),
    "a prompt with a variable that is filled": (
        messages_of(("system", "{lang}"), ("human", "{q}")).partial(lang="de") | MODEL,
        {"q": "rain"},
    ),
    "a prompt with a place for messages": (
        messages_of(MessagesPlaceholder("messages")) | MODEL,
        {"messages": SAID},
    ),
    "a place of another name": (messages_of(MessagesPlaceholder("talk")) | MODEL, {"talk": SAID}),
    "a prompt of plain text": (
        PromptTemplate.from_template("{q}") | FakeListLLM(responses=["x"]),
        {"q": "rain"},
    ),
    "a prompt with history": (
        messages_of(MessagesPlaceholder("chat_history"), ("human", "{input}")) | MODEL,
        {"input": "rain", "chat_history": []},
    ),
    "a prompt that may have history": (
        messages_of(("placeholder", "{history}"), ("human", "{q}")) | MODEL,
        {"q": "rain", "history": []},
    ),
    "a model": (MODEL, USER),
    "a bound model": (MODEL.with_config(tags=["x"]), USER),
    "a model with a fallback": (MODEL.with_fallbacks([says("no")]), USER),
    "a model that is tried again": (MODEL.with_retry(), USER),
    "a configurable model": (MODEL.configurable_fields(name=ConfigurableField(id="n")), USER),
    "a model and a function": (MODEL | RunnableLambda(lambda said: said.content), USER),
    "a text model": (FakeListLLM(responses=["x"]), "rain"),
    "a function of a text": (RunnableLambda(text), "rain"),
    "a function of mappings": (RunnableLambda(dicts), USER),
    "a function of one key": (RunnableLambda(of_topic), {"topic": "rain"}),
    "a function of a typed mapping": (RunnableLambda(typed), {"topic": "rain"}),
    "a function that says nothing": (RunnableLambda(lambda given: given), USER),
    "a type that its author has given": (
        RunnableLambda(lambda given: given).with_types(input_type=str),
        "rain",
    ),
    "a retriever": (Found(), "rain"),
    "a tool": (look, {"place": "rain"}),
    "rag by passing through": (
        {"context": Found(), "question": RunnablePassthrough()} | of("{context} {question}") | MODEL,
        "rain",
    ),
    "passing through alone": ({"topic": RunnablePassthrough()} | of("{topic}") | MODEL, "rain"),
    "passing messages through": (
        {"talk": RunnablePassthrough()} | messages_of(MessagesPlaceholder("talk")) | MODEL,
        SAID,
    ),
    "a passthrough at first": (RunnablePassthrough() | of("{topic}") | MODEL, {"topic": "rain"}),
    "rag by keys": (
        {"context": itemgetter("question") | Found(), "question": itemgetter("question")}
        | of("{context} {question}")
        | MODEL,
        {"question": "rain"},
    ),
    "rag by assign": (
        RunnablePassthrough.assign(context=itemgetter("question") | Found())
        | of("{context} {question}")
        | MODEL,
        {"question": "rain"},
    ),
    "assigned twice": (
        RunnablePassthrough.assign(context=RunnableLambda(of_input) | Found()).assign(
            answer=of("{context} {input}") | MODEL
        ),
        {"input": "rain"},
    ),
    "side by side": (
        RunnableParallel(joke=of("joke {topic}") | MODEL, poem=of("poem {topic}") | MODEL),
        {"topic": "rain"},
    ),
    "a branch": (
        RunnableBranch((with_q, of("{q}") | MODEL), of("no {q}") | MODEL),
        {"q": "rain"},
    ),
    "a history of its own": (
        remembering(input_messages_key="q", history_messages_key="history"),
        {"q": "rain"},
    ),
    "a history of its own, of messages": (remembering(), SAID),
    "a graph of messages": (graph_of(MessagesState, node), {"messages": SAID}),
    "a graph with more": (graph_of(Summed, node), {"messages": SAID}),
    "a graph that adds messages up": (graph_of(Added, node), {"messages": SAID}),
    "a graph of a topic": (graph_of(Topic, node), {"topic": "rain"}),
    "a graph with a question": (graph_of(Answer, node), {"question": "rain"}),
    "a graph whose state needs a question": (graph_of(Modelled, node), {"question": "rain"}),
}


def given(made: Any, messages: Sequence[Mapping[str, Any]] = USER, schema: Any = None) -> Any:
    return asked("c", forms_of("c", schema, {"c": made})["c"], messages)


@pytest.mark.parametrize("name", CHAINS)
def test_a_question_reaches_a_chain_as_it_takes_it(name: str) -> None:
    made, wanted = CHAINS[name]
    assert given(made) == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a prompt with one variable", {"topic": "rain"}),
        ("a model", TALK),
        ("a text model", TALK),
        ("a function of a text", "rain"),
        ("a function that says nothing", TALK),
        ("rag by passing through", "rain"),
        ("a graph of a topic", {"topic": "rain"}),
        ("a prompt with history", {"input": "rain", "chat_history": convert_to_messages(BEFORE)}),
        ("a prompt that may have history", {"q": "rain", "history": convert_to_messages(BEFORE)}),
        ("a graph of messages", {"messages": convert_to_messages(TALK)}),
        ("a history of its own", {"q": "rain"}),
        ("a history of its own, of messages", convert_to_messages(TALK[-1:])),
    ],
)
def test_of_a_conversation_a_text_is_the_last_users(name: str, wanted: Any) -> None:
    assert given(CHAINS[name][0], TALK) == wanted


def test_functions_of_messages_are_given_langchains_own() -> None:
    assert given(RunnableLambda(objects)) == SAID


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"type": "string"}, "rain"),
        ({"enum": ["rain", "sun"]}, "rain"),
        (ASKED, TALK),
        ({"type": "array"}, TALK),
        ({"type": "object", "required": ["city"]}, {"city": "rain"}),
        ({"type": "object", "properties": {"city": {"type": "string"}}}, {"city": "rain"}),
        ({"properties": {"question": {"type": "string"}, "lang": {"type": "string"}}}, {"question": "rain"}),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"required": ["a~b"]}}}, {"a~b": "rain"}),
        ({"required": ["messages"]}, {"messages": TALK}),
        (
            {"required": ["q"], "properties": {"q": {"type": "array", "items": {"type": "object"}}}},
            {"q": TALK},
        ),
        ({"required": ["q", "history"]}, {"q": "rain", "history": BEFORE}),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, "rain"),
    ],
)
def test_what_a_chain_declares_decides(schema: Any, wanted: Any) -> None:
    assert given(of("{other}") | MODEL, TALK, schema) == wanted


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "integer"},
        {"type": "array", "items": {"type": "string"}},
        {"required": ["city", "days"]},
        {"required": ["days"], "properties": {"days": {"type": "integer"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    ],
)
def test_where_the_schema_has_no_place_for_a_question_it_is_checked_as_it_is(schema: Any) -> None:
    assert not isinstance(form_of(shape_of(schema)), Form)
    assert given(of("{other}") | MODEL, USER, schema) == USER


UNCLEAR = {
    "two variables": (of("{city} {days}") | MODEL, "city, days"),
    "two keys": (RunnableLambda(several), "city, days"),
    "a state of several": (graph_of(Joke, node), "topic, joke"),
    "any mapping": (RunnableLambda(mapped), "neither a text nor messages"),
    "a text and a mapping": (RunnableParallel(a=RunnableLambda(text), b=of("{q}")), "neither a text"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_no_rule_decides_is_said_at_load_and_to_who_asks(
    caplog: pytest.LogCaptureFixture, name: str
) -> None:
    made, words = UNCLEAR[name]
    caplog.set_level(logging.INFO)
    forms = forms_of("c", None, {"c": made}, development=True)
    [line] = [record.message for record in caplog.records]
    assert words in line
    assert '@chain("c", input=' in line
    with pytest.raises(WrongChain, match=re.escape(line)):
        asked("c", forms["c"], USER)
    caplog.clear()
    forms_of("c", None, {"c": made})
    assert "the chain c takes neither a text nor messages" in caplog.text
    assert "city" not in caplog.text


def test_what_the_line_says_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    forms_of("c", None, {"c": of("{city} {days}") | MODEL}, development=True)
    declared = re.search(r"input=({.*})\)", caplog.records[-1].message)
    assert declared is not None
    assert given(of("{city} {days}") | MODEL, USER, json.loads(declared[1])) == {"city": "rain"}


def test_a_chain_that_says_nothing_is_named_once_and_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    given(CHAINS["a function that says nothing"][0])
    assert "the chain c does not say what it takes" in caplog.text
    caplog.clear()
    for name, (made, _) in CHAINS.items():
        if name != "a function that says nothing":
            given(made)
    assert not caplog.records


def test_without_a_users_message_there_is_no_text() -> None:
    with pytest.raises(WrongChain, match="none is a user's"):
        given(RunnableLambda(text), BEFORE[:1])


def test_a_stage_of_several_is_given_messages_unless_its_chain_declares_a_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    parts = {
        "prompt": of("{input}") | MODEL,
        "place": messages_of(MessagesPlaceholder("input")) | MODEL,
        "each": Each(of("{input} {item}") | MODEL, lambda given: []),
        "later": of("{prompt}") | MODEL,
        "function": RunnableLambda(of_input),
        "messages": graph_of(MessagesState, node),
        "topic": graph_of(Topic, node),
    }
    forms = forms_of("c", None, parts)
    puts = {stage: asked("c", forms[stage], USER) for stage in parts}
    assert puts == dict.fromkeys(parts, USER) | {"topic": {"topic": "rain"}}
    assert [line.message.split()[2] for line in caplog.records] == ["prompt", "each"]
    assert all('@chain("c", …, input={"type": "string"})' in line.message for line in caplog.records)
    assert set(forms_of("c", {"type": "string"}, parts).values()) == {Form(Kind.TEXT)}


def check(schema: Any, sent: dict[str, Any]) -> tuple[str, str] | None:
    try:
        Inputs({"c": schema}).check(parse_start({**sent, "chain": "c"}, {"c": ("c",)}))
    except Invalid as error:
        return error.extensions["field"], error.extensions["rule"]
    return None


def test_what_is_checked_before_it_is_stored_is_what_the_chain_is_given() -> None:
    short = {"type": "object", "required": ["q"], "properties": {"q": {"type": "string", "maxLength": 4}}}
    assert check(short, {"user": "rain"}) is None
    assert check(short, {"messages": TALK}) is None
    assert check(short, {"user": "sunny"}) == ("user", "must keep to maxLength: 4")
    long = [{"role": "user", "content": "sunny"}]
    assert check(short, {"messages": long}) == ("messages", "must keep to maxLength: 4")
    assert check(short, {"messages": BEFORE[:1]}) == ("messages", "must hold a message of the role user")
    assert check({"type": "string"}, {"user": "rain"}) is None
    assert check({"type": "string"}, {"input": USER}) == ("input", "must be of type string")


async def test_a_worker_puts_it_so(redis_url: str) -> None:
    """One chain shows its form. No rule gives a form for the other chain."""
    shows = RunnableLambda(lambda said: said.to_string())
    chain("shown")(lambda _: of("about {topic}") | shows)
    chain("unclear")(lambda _: RunnableLambda(several))
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream(TALK, chain="shown")
        await jobs.runner.run(body(stream_id))
        assert (await jobs.fold(stream_id)).text == "Human: about rain"
        stream_id = await jobs.stream(TALK, chain="unclear")
        await jobs.runner.run(body(stream_id))
        error = (await jobs.fold(stream_id)).error
        assert error is not None
        assert error["code"] == "chain_error"
