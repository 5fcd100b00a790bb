"""Chains of the tutorials, asked with `user`; `given` is the input that docs/chains.md promises to each."""

from __future__ import annotations

from operator import itemgetter
from typing import TypedDict

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph

from tests.chains.cases import case, llm, retriever
from tests.chains.written.rag import joined

ASKED = "#story please"


@case("user_to_prompt", "by user", user=ASKED, given={"topic": ASKED})
def user_to_prompt(settings):
    return ChatPromptTemplate.from_template("{topic}") | llm() | StrOutputParser()


@case(
    "messages_to_prompt",
    "by user",
    messages=[
        {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "#roles please"},
    ],
    given={"input": "#roles please", "chat_history": [("user", "hi"), ("assistant", "yes")]},
)  # fmt: skip
def messages_to_prompt(settings):
    return (
        ChatPromptTemplate.from_messages(
            [("system", "You help."), MessagesPlaceholder("chat_history"), ("human", "{input}")]
        )
        | llm()
    )


@case("user_to_rag", "by user", user="#story how to resume?", given="#story how to resume?")
def user_to_rag(settings):
    prompt = ChatPromptTemplate.from_template("C: {context} Q: {question}")
    found = {"context": retriever() | joined, "question": RunnablePassthrough()}
    return found | prompt | llm() | StrOutputParser()


@case(
    "user_to_rag_by_keys",
    "by user",
    user="#story how to resume?",
    given={"question": "#story how to resume?"},
)
def user_to_rag_by_keys(settings):
    prompt = ChatPromptTemplate.from_template("C: {context} Q: {question}")
    found = {"context": itemgetter("question") | retriever() | joined, "question": itemgetter("question")}
    return found | prompt | llm() | StrOutputParser()


@case("user_to_function", "by user", user="loud", given="loud")
def user_to_function(settings):
    def shout(text: str) -> str:
        return text.upper()

    return RunnableLambda(shout)


class Topic(TypedDict, total=False):
    topic: str
    poem: str


@case(
    "user_to_state",
    "by user",
    user="#poem please",
    schema={"required": ["topic"]},
    given={"topic": "#poem please"},
)
def user_to_state(settings):
    async def write(state: Topic):
        return {"poem": (await llm().ainvoke(state["topic"])).content}

    graph = StateGraph(Topic)
    graph.add_node("write", write)
    graph.add_edge(START, "write")
    return graph.compile()


@case("user_to_entrypoint", "by user", user="#poem please", given="#poem please")
def user_to_entrypoint(settings):
    @entrypoint()
    async def workflow(topic: str) -> str:
        return (await llm().ainvoke(topic)).content

    return workflow
