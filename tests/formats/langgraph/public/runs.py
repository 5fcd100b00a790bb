"""`runs.stream` in its modes, `wait`, `create` and `join`: the output of each."""

from __future__ import annotations

from conformance.cases import case, normal, say

ADD = 'call add {"a": 1, "b": 2} then say It is $last for you'
BOTH = 'call add {"a": 2, "b": 3} and call look {"q": "cats"} then say Both are done'


@case("plain_values", "modes")
async def _(at):
    at.saw["run"] = normal.run(
        await at.stream(await at.thread(), "plain", say("say one two three")), first=True
    )


@case("plain_updates", "modes")
async def _(at):
    at.saw["run"] = normal.run(
        await at.stream(await at.thread(), "plain", say("say one two three"), stream_mode="updates")
    )


@case("plain_tuples", "modes")
async def _(at):
    at.saw["run"] = normal.run(
        await at.stream(await at.thread(), "plain", say("say one two three"), stream_mode="messages-tuple")
    )


@case("plain_messages", "mode messages")
async def _(at):
    """The request of react-langgraph."""
    at.saw["run"] = normal.run(
        await at.stream(await at.thread(), "plain", say("say one two three"), stream_mode="messages")
    )


@case("tool_messages", "mode messages")
async def _(at):
    at.saw["run"] = normal.run(
        await at.stream(await at.thread(), "helper", say(ADD), stream_mode=["messages", "updates"])
    )


@case("tool_tuples", "tools")
async def _(at):
    at.saw["run"] = normal.run(
        await at.stream(await at.thread(), "helper", say(ADD), stream_mode="messages-tuple")
    )


@case("tool_updates", "tools")
async def _(at):
    at.saw["run"] = normal.run(await at.stream(await at.thread(), "helper", say(ADD), stream_mode="updates"))


@case("tool_state", "tools")
async def _(at):
    """The tool's cards remain after the run."""
    thread = await at.thread()
    at.saw["run"] = normal.run(await at.stream(thread, "helper", say(ADD), stream_mode="values"))
    at.saw["state"] = normal.state((await at.client.threads.get_state(thread))["values"])


@case("two_tools", "tools")
async def _(at):
    thread = await at.thread()
    said = normal.run(await at.stream(thread, "helper", say(BOTH), stream_mode=["values", "messages-tuple"]))
    for name in ("messages", "values last"):
        told = said[name] if isinstance(said[name], list) else said[name]["messages"]
        at.saw[name] = sorted((m for m in told if m["type"] == "tool"), key=lambda m: m["content"])
    at.saw["calls"] = [m.get("calls") for m in said["messages"] if m.get("calls")]


@case("tool_next_turn", "tools")
async def _(at):
    """The model of the next turn gets the tool's messages."""
    thread = await at.thread()
    await at.client.runs.wait(thread, "helper", input=say(ADD))
    at.saw["second"] = normal.state(await at.client.runs.wait(thread, "helper", input=say("echo")))


@case("steps_values", "every step")
async def _(at):
    """`values` comes after every step, not only at the end."""
    at.saw["run"] = normal.run(
        await at.stream(await at.thread(), "helper", say(ADD), stream_mode="values"), whole=True
    )


@case("facts_steps", "every step")
async def _(at):
    at.saw["run"] = normal.run(
        await at.stream(await at.thread(), "facts", {"topic": "Rome"}, stream_mode="values"), whole=True
    )


@case("facts_values", "no messages")
async def _(at):
    at.saw["run"] = normal.run(
        await at.stream(await at.thread(), "facts", {"topic": "Rome"}, stream_mode=["values", "updates"])
    )


@case("facts_wait", "no messages")
async def _(at):
    thread = await at.thread()
    at.saw["wait"] = await at.client.runs.wait(thread, "facts", input={"topic": "Rome"})
    at.saw["state"] = normal.snapshot(await at.client.threads.get_state(thread))
    at.saw["thread"] = normal.thread(await at.client.threads.get(thread))


@case("facts_again", "no messages")
async def _(at):
    """A second run continues from the first run's state."""
    thread = await at.thread()
    await at.client.runs.wait(thread, "facts", input={"topic": "Rome"})
    at.saw["second"] = await at.client.runs.wait(thread, "facts", input={"topic": "Oslo"})


@case("custom_of_graph", "custom")
async def _(at):
    at.saw["run"] = normal.run(
        await at.stream(await at.thread(), "ticks", {"count": 3}, stream_mode=["custom", "updates"])
    )


@case("subgraph_silent", "subgraphs")
async def _(at):
    modes = ["updates", "custom", "messages-tuple"]
    at.saw["run"] = normal.run(
        await at.stream(await at.thread(), "nested", say("say hi there"), stream_mode=modes)
    )


@case("subgraph_shown", "subgraphs")
async def _(at):
    modes = ["updates", "custom", "messages-tuple"]
    parts = await at.stream(
        await at.thread(), "nested", say("say hi there"), stream_mode=modes, stream_subgraphs=True
    )
    at.saw["run"] = normal.run(parts)


@case("subgraph_state", "subgraphs")
async def _(at):
    at.saw["wait"] = normal.state(
        await at.client.runs.wait(await at.thread(), "nested", input=say("say hi there"))
    )


@case("modes_together", "modes")
async def _(at):
    modes = ["values", "updates", "messages-tuple", "custom"]
    at.saw["run"] = normal.run(
        await at.stream(await at.thread(), "plain", say("say one two three"), stream_mode=modes)
    )


@case("mode_tasks", "other modes", refusable=("stream_mode",))
async def _(at):
    parts = await at.stream(await at.thread(), "plain", say("say one"), stream_mode="tasks")
    at.saw["tasks"] = [(d.get("name"), "result" in d) for e, d in parts if e == "tasks"]


@case("mode_checkpoints", "other modes", refusable=("stream_mode",))
async def _(at):
    parts = await at.stream(await at.thread(), "facts", {"topic": "Rome"}, stream_mode="checkpoints")
    told = [d for e, d in parts if e == "checkpoints"]
    at.saw["some"], at.saw["last"] = bool(told), told[-1]["values"]


@case("mode_unknown", "other modes")
async def _(at):
    await at.tried(
        "unknown mode", at.stream(await at.thread(), "plain", say("say one"), stream_mode="nonsense")
    )


@case("failure_stream", "failure")
async def _(at):
    thread = await at.thread()
    said = normal.run(await at.stream(thread, "fails", say("x"), stream_mode=["values", "updates"]))
    at.saw["error"] = [sorted(e) for e in said["error"]]
    at.saw["updates"] = [list(u) for u in said["updates"]]
    at.saw["status"] = (await at.client.threads.get(thread))["status"]
    at.saw["runs"] = [r["status"] for r in await at.client.runs.list(thread)]


@case("failure_wait", "failure")
async def _(at):
    """`wait` raises by default for a failed run."""
    try:
        at.saw["wait"] = await at.client.runs.wait(await at.thread(), "fails", input=say("x"))
    except Exception as error:
        at.saw["wait raises"] = type(error).__name__
    told = await at.client.runs.wait(await at.thread(), "fails", input=say("x"), raise_error=False)
    at.saw["error"] = sorted(told.get("__error__", {}))


@case("wait_plain", "wait")
async def _(at):
    thread = await at.thread()
    at.saw["wait"] = normal.state(
        await at.client.runs.wait(thread, "plain", input=say("say one two", id="m-1"))
    )
    at.saw["thread"] = normal.thread(await at.client.threads.get(thread))


@case("wait_alone", "wait")
async def _(at):
    at.saw["wait"] = normal.state(
        await at.client.runs.wait(None, "plain", input=say("say one two", id="m-1"))
    )


@case("stream_alone", "wait")
async def _(at):
    at.saw["run"] = normal.run(
        await at.stream(None, "plain", say("say one two"), stream_mode=["values", "updates"])
    )


@case("create_and_join", "create")
async def _(at):
    thread = await at.thread()
    made = await at.client.runs.create(
        thread, "plain", input=say("say one two"), metadata={"case": "x", "label": "first"}
    )
    at.saw["made"] = {k: v for k, v in normal.one_run(made).items() if k != "status"}
    at.saw["begins"] = made["status"] in ("pending", "running")
    at.saw["join"] = normal.state(await at.client.runs.join(thread, made["run_id"]))
    at.saw["run"] = normal.one_run(await at.client.runs.get(thread, made["run_id"]))
    at.saw["list"] = [normal.one_run(r) for r in await at.client.runs.list(thread)]


@case("runs_listed", "create")
async def _(at):
    thread = await at.thread()
    for text in ("say one", "say two", "say three"):
        await at.client.runs.wait(thread, "plain", input=say(text))
    at.saw["all"] = len(await at.client.runs.list(thread))
    at.saw["limit"] = len(await at.client.runs.list(thread, limit=2))
    at.saw["offset"] = len(await at.client.runs.list(thread, limit=2, offset=2))
    at.saw["status"] = len(await at.client.runs.list(thread, status="success"))
    at.saw["none"] = await at.client.runs.list(thread, status="error")


@case("runs_select", "create", refusable=("select",))
async def _(at):
    thread = await at.thread()
    await at.client.runs.wait(thread, "plain", input=say("say one"))
    at.saw["select"] = sorted((await at.client.runs.list(thread, limit=1, select=["run_id", "status"]))[0])


@case("ids_agree", "ids")
async def _(at):
    """The messages of the stream, of the updates and of the state have the same ids."""
    thread = await at.thread()
    parts = await at.stream(
        thread, "plain", say("say one two", id="m-1"), stream_mode=["messages-tuple", "updates", "values"]
    )
    streamed = {d[0]["id"] for e, d in parts if e == "messages"}
    updated = {m["id"] for e, d in parts if e == "updates" for u in d.values() for m in u["messages"]}
    values = [d for e, d in parts if e == "values"][-1]
    state = (await at.client.threads.get_state(thread))["values"]
    at.saw["one message"] = len(streamed)
    at.saw["updates"] = updated == streamed
    at.saw["values"] = [m["id"] for m in values["messages"]][1:] == list(streamed)
    at.saw["state"] = [m["id"] for m in state["messages"]] == [m["id"] for m in values["messages"]]
    run = next(d["run_id"] for e, d in parts if e == "metadata")
    at.saw["run"] = [r["run_id"] for r in await at.client.runs.list(thread)] == [run]


@case("whole_messages", "whole messages", allow=("told",))
async def _(at):
    """The usage, and the reason why the model has stopped, are in the state's messages."""
    thread = await at.thread()
    last = (await at.client.runs.wait(thread, "plain", input=say("say one two")))["messages"][-1]
    at.saw["usage"] = last.get("usage_metadata")
    at.saw["finish (told)"] = (last.get("response_metadata") or {}).get("finish_reason")


@case("message_names", "whole messages")
async def _(at):
    """A model's message has a name only if it was given one, because the next turn's model would receive the
    name."""
    thread = await at.thread()
    parts = await at.stream(thread, "plain", say("say one two"), stream_mode=["messages-tuple", "values"])
    at.saw["stream"] = sorted({str(d[0].get("name")) for e, d in parts if e == "messages"})
    at.saw["state"] = [
        m.get("name") for m in (await at.client.threads.get_state(thread))["values"]["messages"]
    ]


@case("memory", "memory")
async def _(at):
    thread = await at.thread()
    await at.client.runs.wait(thread, "plain", input=say("say one", id="m-1"))
    at.saw["second"] = normal.state(await at.client.runs.wait(thread, "plain", input=say("echo", id="m-2")))


@case("message_replaced", "memory")
async def _(at):
    """A message with a known id replaces the earlier message."""
    thread = await at.thread()
    await at.client.runs.wait(thread, "plain", input=say("say one", id="m-1"))
    at.saw["second"] = normal.state(
        await at.client.runs.wait(thread, "plain", input=say("say other", id="m-1"))
    )


@case("input_null", "memory")
async def _(at):
    """Without new input nothing is done, and no model is called."""
    thread = await at.thread()
    await at.client.runs.wait(thread, "plain", input=say("say one", id="m-1"))
    said = normal.run(await at.stream(thread, "plain", None, stream_mode=["updates", "messages-tuple"]))
    at.saw["updates"], at.saw["messages"] = said.get("updates"), said.get("messages")
    at.saw["state"] = len((await at.client.threads.get_state(thread))["values"]["messages"])


@case("recursion_limit", "options", refusable=("recursion_limit",))
async def _(at):
    said = normal.run(
        await at.stream(
            await at.thread(), "helper", say(ADD), config={"recursion_limit": 1}, stream_mode="updates"
        )
    )
    at.saw["error"] = len(said.get("error", ()))


@case("unknown_assistant", "options")
async def _(at):
    await at.tried("unknown", at.stream(await at.thread(), "no_such_graph", say("x")))


@case("sync_client", "sync")
async def _(at):
    """Use the synchronous client, in a thread."""
    import asyncio

    def asked():
        client = at.sync()
        thread = client.threads.create()["thread_id"]
        parts = client.runs.stream(
            thread, "helper", input=say(ADD), stream_mode=["values", "updates", "messages-tuple"]
        )
        said = normal.run((p.event, p.data) for p in parts)
        return said, normal.snapshot(client.threads.get_state(thread))

    at.saw["run"], at.saw["state"] = await asyncio.to_thread(asked)
