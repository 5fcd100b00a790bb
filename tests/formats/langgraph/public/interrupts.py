"""A question in the middle of a run: how it is sent to the client, and how `command` answers it."""

from __future__ import annotations

from conformance.cases import case, normal, say


async def asked(at, thread, **more):
    """Run the graph until it asks its question."""
    return await at.client.runs.wait(thread, "asker", input=say("say Dear Bob", id="m-1"), **more)


@case("interrupt_told", "interrupts")
async def _(at):
    """The interrupt is in `updates` and in `values`."""
    thread = await at.thread()
    at.saw["run"] = normal.run(
        await at.stream(thread, "asker", say("say Dear Bob"), stream_mode=["values", "updates"])
    )


@case("interrupt_in_updates", "interrupts")
async def _(at):
    at.saw["run"] = normal.run(
        await at.stream(await at.thread(), "asker", say("say Dear Bob"), stream_mode="updates")
    )


@case("interrupt_waits", "interrupts")
async def _(at):
    """The run has ended, the thread waits, and the state contains the question."""
    thread = await at.thread()
    at.saw["wait"] = normal.state(await asked(at, thread))
    at.saw["thread"] = normal.thread(await at.client.threads.get(thread))
    at.saw["state"] = normal.snapshot(await at.client.threads.get_state(thread))


@case("interrupt_same_id", "interrupts")
async def _(at):
    """The interrupt has the same id everywhere."""
    thread = await at.thread()
    parts = await at.stream(thread, "asker", say("say Dear Bob"), stream_mode=["values", "updates"])
    ids = {i["id"] for e, d in parts if "__interrupt__" in d for i in d["__interrupt__"]}
    state = await at.client.threads.get_state(thread)
    ids |= {i["id"] for t in state["tasks"] for i in t["interrupts"]}
    ids |= {i["id"] for many in (await at.client.threads.get(thread))["interrupts"].values() for i in many}
    at.saw["ids"] = len(ids)


@case("resume", "resume")
async def _(at):
    thread = await at.thread()
    await asked(at, thread)
    parts = await at.stream(
        thread, "asker", None, command={"resume": "yes"}, stream_mode=["values", "updates"]
    )
    at.saw["run"] = normal.run(parts)
    at.saw["state"] = normal.snapshot(await at.client.threads.get_state(thread))
    at.saw["thread"] = (await at.client.threads.get(thread))["status"]
    at.saw["runs"] = len(await at.client.runs.list(thread))


@case("resume_by_id", "resume")
async def _(at):
    thread = await at.thread()
    await asked(at, thread)
    [waiting] = [i for t in (await at.client.threads.get_state(thread))["tasks"] for i in t["interrupts"]]
    at.saw["wait"] = normal.state(
        await at.client.runs.wait(thread, "asker", command={"resume": {waiting["id"]: "by id"}})
    )


@case("resume_object", "resume")
async def _(at):
    thread = await at.thread()
    await asked(at, thread)
    answer = {"decision": "edit", "text": "Dear Ann"}
    at.saw["wait"] = normal.state(await at.client.runs.wait(thread, "asker", command={"resume": answer}))


@case("command_update", "resume")
async def _(at):
    """Send an answer together with a change of the state."""
    thread = await at.thread()
    await asked(at, thread)
    update = {"messages": [{"type": "human", "content": "and quickly", "id": "m-2"}]}
    at.saw["wait"] = normal.state(
        await at.client.runs.wait(thread, "asker", command={"resume": "yes", "update": update})
    )


@case("interrupted_search", "interrupts")
async def _(at):
    """List the threads that wait for a person, as an inbox does."""
    thread = await at.thread(metadata={"case": at.tag})
    await at.client.runs.wait(await at.thread(metadata={"case": at.tag}), "plain", input=say("say one"))
    await asked(at, thread)
    found = await at.client.threads.search(metadata={"case": at.tag}, status="interrupted")
    at.saw["found"] = [normal.thread(t) for t in found]
    at.saw["count"] = await at.client.threads.count(metadata={"case": at.tag}, status="interrupted")
