"""Sequences again: prompts of every kind, parsers, values, and what fails."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TypedDict
from uuid import UUID

from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import (
    CommaSeparatedListOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
    StrOutputParser,
)
from langchain_core.prompts import (
    ChatPromptTemplate,
    FewShotChatMessagePromptTemplate,
)
from langchain_core.runnables import (
    RunnableConfig,
    RunnableLambda,
    RunnablePassthrough,
)
from langchain_core.runnables import chain as as_chain

from tests.chains.cases import case, llm, unreachable
from tests.chains.written.lcel import Person


@case("few_shots", "plain", input={"input": "#roles 2+2?"})
def few_shots(settings):
    example = ChatPromptTemplate.from_messages([("human", "{input}"), ("ai", "{output}")])
    shots = FewShotChatMessagePromptTemplate(
        example_prompt=example, examples=[{"input": "1+1", "output": "2"}, {"input": "1+2", "output": "3"}]
    )
    return (
        ChatPromptTemplate.from_messages([("system", "You count."), shots, ("human", "{input}")])
        | llm()
        | StrOutputParser()
    )


@case("assigned_prompt", "plain", input={"topic": "owls", "n": 2})
def assigned_prompt(settings):
    given = RunnablePassthrough.assign(twice=lambda x: x["n"] * 2)
    return (
        given
        | ChatPromptTemplate.from_template("#joke {topic} {twice}")
        | llm()
        | StrOutputParser()
        | (lambda s: s.upper())
    )


@case(
    "decorated_chain",
    "plain",
    input={"topic": "bees"},
    note="@chain of an async function that gives a Runnable",
)
def decorated_chain(settings):
    model = llm()

    @as_chain
    async def run(given):
        return ChatPromptTemplate.from_template(f"#joke {given['topic']}") | model

    return run


@case("transform_stream", "plain", input="#story now", note="a generator behind a model, chunk by chunk")
def transform_stream(settings):
    async def shout(chunks):
        async for chunk in chunks:
            yield chunk.content.upper()

    return llm() | shout


@case("params_by_function", "plain", user="#settings x", params={"warm": 0.9, "city": "Oslo"})
def params_by_function(settings):
    def choose(given, config: RunnableConfig):
        return llm(temperature=config["configurable"]["warm"]) | (
            lambda m: f"{m.content} {config['configurable']['city']}"
        )

    return RunnableLambda(choose)


class Typed(TypedDict):
    """A person."""

    name: str
    age: int
    tags: list[str]


@case("structured_typed_dict", "structured", user="#person x")
def structured_typed_dict(settings):
    return llm().with_structured_output(Typed)


@case("structured_json_mode", "structured", input="#person x")
def structured_json_mode(settings):
    return llm().with_structured_output(Person, method="json_mode")


@case(
    "tools_parser",
    "structured",
    user='#do call Person {"name": "Rex", "age": 3} & call Person {"name": "Tom", "age": 5}',
)
def tools_parser(settings):
    return llm().bind_tools([Person]) | PydanticToolsParser(tools=[Person])


@case("list_parser", "structured", input="#do say red, green, blue", note="a list that grows chunk by chunk")
def list_parser(settings):
    return llm() | CommaSeparatedListOutputParser()


@case("value_of_dates", "values", input={"n": 1})
def value_of_dates(settings):
    when = {"day": date(2026, 2, 3), "at": datetime(2026, 2, 3, 4, tzinfo=UTC), "id": UUID(int=7)}
    return RunnableLambda(lambda x: when | {"price": Decimal("9.90"), "model": Person(name="Rex", age=3)})


@case("value_of_message", "values", input={"n": 1})
def value_of_message(settings):
    return RunnableLambda(
        lambda x: {
            "reply": AIMessage("hi"),
            "documents": [Document("text", metadata={"page": 2})],
            "n": x["n"],
        }
    )


@case("fallback_of_chains", "failures", input={"topic": "ants"})
def fallback_of_chains(settings):
    prompt = ChatPromptTemplate.from_template("#joke {topic}")
    return (prompt | unreachable() | StrOutputParser()).with_fallbacks([prompt | llm() | StrOutputParser()])


@case("forbidden", "failures", input="#status 403")
def forbidden(settings):
    return llm()


@case("missing_variable", "failures", input={"question": "q"})
def missing_variable(settings):
    return ChatPromptTemplate.from_template("{language} {question}") | llm()


@case("raises_after_text", "failures", input="#story x")
def raises_after_text(settings):
    async def gen(chunks):
        n = 0
        async for chunk in chunks:
            yield chunk.content
            n += 1
            if n == 5:
                raise RuntimeError("no more")

    return llm() | gen


@case("parser_refuses", "failures", input="#story x")
def parser_refuses(settings):
    return llm() | PydanticOutputParser(pydantic_object=Person)
