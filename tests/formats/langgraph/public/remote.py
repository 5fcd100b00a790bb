"""LangGraph's RemoteGraph: a graph of the server that is used like a local graph."""

from __future__ import annotations

import asyncio

from conformance.cases import case, normal, say
from conformance.protocol import texts


def config(thread):
    return {"configurable": {"thread_id": thread}}


@case("remote_invoke", "RemoteGraph")
async def _(at):
    thread = await at.thread()
    at.saw["invoke"] = normal.state(await at.remote("plain").ainvoke(say("say one two"), config(thread)))
    at.saw["facts"] = await at.remote("facts").ainvoke({"topic": "Rome"})


@case("remote_stream", "RemoteGraph")
async def _(at):
    modes = ["values", "updates", "custom"]
    got = [
        (p.event, p.data) async for p in at.remote("nested").astream(say("say hi there"), stream_mode=modes)
    ]
    at.saw["run"] = normal.run(got)


@case("remote_subgraphs", "RemoteGraph")
async def _(at):
    got = []
    async for where, mode, data in at.remote("nested").astream(
        say("say hi there"), stream_mode=["updates", "custom"], subgraphs=True
    ):
        got.append(("|".join([mode, *where]), data))
    at.saw["run"] = normal.run(got)


@case("remote_messages", "RemoteGraph")
async def _(at):
    got = [d async for d in at.remote("plain").astream(say("say one two three"), stream_mode="messages")]
    at.saw["messages"] = normal.messages(got)


@case("remote_state", "RemoteGraph")
async def _(at):
    graph, thread = at.remote("plain"), await at.thread()
    await graph.ainvoke(say("say one two", id="m-1"), config(thread))
    state = await graph.aget_state(config(thread))
    at.saw["state"] = {
        "values": normal.state(state.values),
        "next": list(state.next),
        "tasks": len(state.tasks),
    }
    at.saw["checkpoint"] = bool(state.config["configurable"].get("checkpoint_id"))
    told = [s async for s in graph.aget_state_history(config(thread))]
    at.saw["history"] = [
        normal.state(told[0].values),
        any(s.next == ("answer",) for s in told) or len(told) > 1,
    ]


@case("remote_interrupt", "RemoteGraph")
async def _(at):
    from langgraph.types import Command

    graph, thread = at.remote("asker"), await at.thread()
    got = [d async for d in graph.astream(say("say Dear Bob"), config(thread), stream_mode="updates")]
    at.saw["asks"] = [
        str(i.get("value") if isinstance(i, dict) else i.value)
        for d in got
        for i in d.get("__interrupt__", ())
    ]
    state = await graph.aget_state(config(thread))
    at.saw["next"], at.saw["interrupts"] = (
        list(state.next),
        [i.value for t in state.tasks for i in t.interrupts],
    )
    at.saw["resumed"] = normal.state(await graph.ainvoke(Command(resume="yes"), config(thread)))


@case("remote_in_a_graph", "RemoteGraph")
async def _(at):
    """Use it as a node of a local graph."""
    from langgraph.graph import START, MessagesState, StateGraph

    whole = StateGraph(MessagesState).add_node("far", at.remote("plain")).add_edge(START, "far").compile()
    at.saw["invoke"] = [(m.type, m.text) for m in (await whole.ainvoke(say("say one two")))["messages"]]


@case("remote_sync", "RemoteGraph")
async def _(at):
    got = await asyncio.to_thread(
        lambda: list(at.remote("facts").stream({"topic": "Rome"}, stream_mode="updates"))
    )
    at.saw["updates"] = got


@case("remote_drawn", "RemoteGraph")
async def _(at):
    told = await at.remote("facts").aget_graph()
    at.saw["nodes"] = sorted(told.nodes)


@case("remote_events", "RemoteGraph by the protocol")
async def _(at):
    """Use `astream_events` in version 3."""
    async with await at.remote("plain").astream_events(say("say one two three"), version="v3") as run:
        at.saw["messages"] = await texts(run.messages)
        at.saw["output"] = normal.state(await run.output())
        at.saw["interrupted"] = await run.interrupted()


@case("remote_events_values", "RemoteGraph by the protocol")
async def _(at):
    async with await at.remote("facts").astream_events({"topic": "Rome"}, version="v3") as run:
        at.saw["last"] = [v async for v in run.values][-1]


@case("remote_events_interrupt", "RemoteGraph by the protocol")
async def _(at):
    async with await at.remote("asker").astream_events(say("say Dear Bob"), version="v3") as run:
        values = [v async for v in run.values]
        for _ in range(150):
            if await run.interrupted():
                break
            await asyncio.sleep(0.1)
        at.saw["interrupted"], at.saw["interrupts"] = await run.interrupted(), len(await run.interrupts())
        at.saw["last"] = normal.state(values[-1])["messages"]


@case("remote_events_sync", "RemoteGraph by the protocol")
async def _(at):
    def asked():
        with at.remote("plain").stream_events(say("say one two three"), version="v3") as run:
            return [str(message.text) for message in run.messages]

    at.saw["messages"] = await asyncio.to_thread(asked)
