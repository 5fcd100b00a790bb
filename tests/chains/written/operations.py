"""Behaviour that needs a separate gateway: its stop, its limits, its callers, its releases, its log."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
import sys
from pathlib import Path
from typing import TypedDict

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from tests.chains.asked import ask
from tests.chains.cases import check, llm, plain_chain, scratch

# short stage limit, and the most detailed log
SMALL = {"GATEWAY_STAGE_LIMIT_SECONDS": "3", "GATEWAY_LOG_LEVEL": "debug"}


def said(seen) -> str:
    """Return a stream's end and its text."""
    return seen.error or " ".join(text for group in seen.texts.values() for text in group)


@plain_chain("exits")
def exits(settings):
    async def f(given):
        sys.exit("bad arguments")

    return RunnableLambda(f)


@plain_chain("talks_long")
def talks_long(settings):
    return RunnableLambda(lambda given: "#long") | llm()


@check("exit_in_a_chain", "exit", alone=True, note="sys.exit() fails its own stream, and nothing else")
async def exit_in_a_chain(kit):
    gateway = await kit.gateway()
    talking, begun = {"chain": "talks_long", "input": "x"}, asyncio.Event()
    other = asyncio.create_task(ask(gateway.client, talking, seconds=30, begun=begun))
    await asyncio.wait_for(begun.wait(), 30)
    own = await ask(gateway.client, {"chain": "exits", "input": "x"}, seconds=20)
    see = {
        "its stream": own.error,
        "another stream": (await other).error or "done",
        "the gateway lives": await gateway.lives(),
    }
    await gateway.stop()
    return {"its stream": "chain_error", "another stream": "done", "the gateway lives": True}, see


class Steps(TypedDict, total=False):
    n: int


@plain_chain("five_nodes")
def five_nodes(settings):
    b, before = StateGraph(Steps), START
    for i in range(5):

        async def node(state, i=i):
            await asyncio.sleep(0.8)
            return {"n": i}

        b.add_node(f"n{i}", node)
        b.add_edge(before, f"n{i}")
        before = f"n{i}"
    return b.compile()


@check("long_graph", "long graph", env=SMALL,
       note="a graph of five nodes of 0.8 s; no node is over the limit of 3 s, all of them are")  # fmt: skip
async def long_graph(kit, gateway):
    own = await ask(gateway.client, {"chain": "five_nodes", "input": {"n": 0}}, seconds=60)
    return {"end": "done"}, {"end": own.error or "done"}


@plain_chain("who")
def who(settings):
    async def f(given, config: RunnableConfig):
        known = dict(config["configurable"]) | {"metadata": config.get("metadata") or {}}
        return "\n".join(sorted(flat(known)))

    return RunnableLambda(f)


def flat(value, path=""):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{path}/{key}")
    else:
        yield f"{path}={value}"


@check("who_asks", "who asks", alone=True, note="a chain can tell callers apart, by what no client can send")
async def who_asks(kit):
    gateway, keys = await kit.callers()

    async def known(name, params):
        body = {"chain": "who", "user": "x", "params": {"colour": "blue"} | params}
        seen = await ask(gateway.client, body, headers={"authorization": f"Bearer {keys[name]}"})
        return set(said(seen).split("\n"))

    first, second, third = [await known(name, {}) for name in ("alice", "alice", "bob")]
    of_alice = (first & second) - third
    forged = False
    for line in of_alice:
        path, _, value = line.partition("=")
        forged |= line in await known("bob", {path.split("/")[-1]: value})
    asked = all("/colour=blue" in of for of in (first, second, third))
    see = {"asked": asked, "tells callers apart": bool(of_alice), "can be forged": forged}
    return {"asked": True, "tells callers apart": True, "can be forged": False}, see


@plain_chain("new_chain")
def new_chain(settings):
    return RunnableLambda(lambda given: "#story") | llm()


@check(
    "rolling_release",
    "release",
    alone=True,
    note="a worker of the release before leaves a new chain's streams to others",
)
async def rolling_release(kit):
    store = kit.store()
    web = await kit.gateway("web", store=store)
    old = await kit.gateway("worker", store=store, env={"GATEWAY_CHAINS": ""})
    asked = asyncio.create_task(ask(web.client, {"chain": "new_chain", "input": "x"}, seconds=60))
    await asyncio.wait({asked}, timeout=5)  # the old gateway gets it first
    new = None if asked.done() else await kit.gateway("worker", store=store)
    own = await asked
    for gateway in filter(None, (web, old, new)):
        await gateway.stop()
    return {"end": "done"}, {"end": own.error or "done"}


@check(
    "beside_the_pins",
    "packages",
    alone=True,
    note="the packages of the cases can be had beside the project's pins",
    needs="aiosqlite",
)
async def beside_the_pins(kit):
    from packaging.requirements import Requirement

    def plain(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    line = re.compile(r"^([A-Za-z0-9._-]+)==([^;\s]+)", re.M)
    files = [path.read_text() for path in map(Path, ("constraints.txt", "requirements.txt")) if path.exists()]
    pins = {plain(name): version for text in files for name, version in line.findall(text)}
    wanted = [
        name
        for name, _ in line.findall(Path(__file__).parent.parent.joinpath("requirements.txt").read_text())
    ]
    refused = []
    for name in wanted:
        for asked in importlib.metadata.requires(name) or ():
            need = Requirement(asked)
            if need.marker and not need.marker.evaluate({"extra": ""}):
                continue
            pinned = pins.get(plain(need.name))
            if pinned and not need.specifier.contains(pinned, prereleases=True):
                refused.append(f"{name} wants {need.name}{need.specifier}, pinned is {pinned}")
    return {"conflicts": []}, {"conflicts": refused}


@plain_chain("wrong_prompt")
def wrong_prompt(settings):
    return (
        ChatPromptTemplate.from_template("Speak {language_of_answer}: {question}") | llm() | StrOutputParser()
    )


@plain_chain("wrong_stages", stages=("first", "second"))
def wrong_stages(settings):
    return {"first": llm(), "secnd": llm()}


@check("cause_of_a_failure", "cause", env=SMALL,
       note="whoever develops a chain finds what was wrong in the log, at its most talkative")  # fmt: skip
async def cause_of_a_failure(kit, gateway):
    ends = [
        await ask(gateway.client, {"chain": "wrong_prompt", "input": {"question": "q"}}, seconds=30),
        await ask(gateway.client, {"chain": "wrong_stages", "input": "q"}, seconds=30),
    ]
    log = gateway.process.said()
    see = {"ends": [end.error for end in ends], "the prompt's missing variable": "language_of_answer" in log}
    see["a stage's wrong name"] = "secnd" in log
    return {
        "ends": ["chain_error"] * 2,
        "the prompt's missing variable": True,
        "a stage's wrong name": True,
    }, see


@plain_chain("holds_a_file")
async def holds_a_file(settings):
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    b = StateGraph(MessagesState)
    model = llm()

    async def a(state: MessagesState):
        return {"messages": [await model.ainvoke("#poem")]}

    b.add_node("a", a)
    b.add_edge(START, "a")
    return b.compile(checkpointer=AsyncSqliteSaver(await aiosqlite.connect(scratch("held.db"))))


@check(
    "ends_with_open_saver",
    "saver",
    alone=True,
    note="SIGTERM ends a process whose chain has opened a database",
    needs="aiosqlite",
)
async def ends_with_open_saver(kit):
    gateway = await kit.gateway()
    own = await ask(gateway.client, {"chain": "holds_a_file", "user": "x"}, seconds=30)
    return {"end": "done", "ended": True}, {"end": own.error or "done", "ended": await gateway.stop(20)}
