"""Threads: states, history, regenerate and branches, search and count, deletion, and two concurrent runs."""

from __future__ import annotations

import asyncio
import contextlib

from conformance.cases import case, normal, say


@case("thread_new", "threads")
async def _(at):
    made = await at.client.threads.create(metadata={"case": at.tag, "who": "me"})
    at.saw["made"] = normal.thread(made)
    at.saw["found"] = normal.thread(await at.client.threads.get(made["thread_id"]))
    at.saw["history"] = await at.client.threads.get_history(made["thread_id"])


@case("thread_named", "threads")
async def _(at):
    import uuid

    name = str(uuid.uuid4())
    made = await at.client.threads.create(thread_id=name)
    at.saw["named"] = made["thread_id"] == name
    again = await at.client.threads.create(thread_id=name, if_exists="do_nothing")
    at.saw["again"] = again["thread_id"] == name


@case("thread_graph", "threads", refusable=("graph_id",))
async def _(at):
    made = await at.client.threads.create(graph_id="plain", metadata={"case": at.tag})
    at.saw["graph_id"] = made["metadata"].get("graph_id")
    await at.client.runs.wait(made["thread_id"], "plain", input=say("say one"))
    at.saw["after"] = normal.thread(await at.client.threads.get(made["thread_id"]))


@case("thread_ttl", "threads", refusable=("ttl",))
async def _(at):
    made = await at.client.threads.create(ttl=60, metadata={"case": at.tag})
    at.saw["made"] = bool(made["thread_id"])


@case("thread_metadata", "threads")
async def _(at):
    """Metadata is kept across runs, and can be changed."""
    thread = await at.thread(metadata={"case": at.tag, "who": "me"})
    await at.client.runs.wait(thread, "plain", input=say("say one"))
    at.saw["after a run"] = normal.thread(await at.client.threads.get(thread))["metadata"]


@case("thread_state", "state")
async def _(at):
    thread = await at.thread()
    await at.client.runs.wait(thread, "plain", input=say("say one two", id="m-1"))
    found = await at.client.threads.get_state(thread)
    at.saw["state"] = normal.snapshot(found)
    by_id = await at.client.threads.get_state(thread, checkpoint_id=found["checkpoint"]["checkpoint_id"])
    at.saw["by id"] = normal.snapshot(by_id)
    at.saw["by checkpoint"] = normal.snapshot(
        await at.client.threads.get_state(thread, checkpoint=found["checkpoint"])
    )
    at.saw["parent"] = bool(found["parent_checkpoint"])


@case("history_lineage", "regenerate")
async def _(at):
    """Check the state before each message, to which a regeneration returns."""
    thread = await at.thread()
    await at.client.runs.wait(thread, "plain", input=say("say one", id="m-1"))
    await at.client.runs.wait(thread, "plain", input=say("say two", id="m-2"))
    history = await at.client.threads.get_history(thread, limit=50)
    at.saw["lineage"] = normal.lineage(history)
    at.saw["newest first"] = normal.state(history[0]["values"])
    at.saw["tasks of the newest"] = history[0]["tasks"]


@case("history_limit", "regenerate")
async def _(at):
    thread = await at.thread()
    await at.client.runs.wait(thread, "plain", input=say("say one", id="m-1"))
    await at.client.runs.wait(thread, "plain", input=say("say two", id="m-2"))
    history = await at.client.threads.get_history(thread, limit=50)
    at.saw["limit"] = len(await at.client.threads.get_history(thread, limit=1))
    by = {"checkpoint": {"checkpoint_id": history[0]["checkpoint"]["checkpoint_id"]}}
    at.saw["by checkpoint"] = len(await at.client.threads.get_history(thread, limit=1, **by))


async def regenerate(at, thread, nth=-1):
    """Submit what useStream and agent-chat-ui submit: no input, from the parent of the answer's first
    state."""
    history = await at.client.threads.get_history(thread, limit=100)
    answer = [m for m in history[0]["values"]["messages"] if m["type"] == "ai"][nth]
    first = [s for s in history if any(m["id"] == answer["id"] for m in s["values"].get("messages", ()))][-1]
    return first["parent_checkpoint"]


@case("regenerate", "regenerate")
async def _(at):
    thread = await at.thread()
    await at.client.runs.wait(thread, "plain", input=say("echo", id="m-1"))
    checkpoint = await regenerate(at, thread)
    at.saw["has a parent"] = bool(checkpoint)
    parts = await at.stream(
        thread, "plain", None, checkpoint=checkpoint, stream_mode=["values", "messages-tuple"]
    )
    at.saw["run"] = normal.run(parts)
    at.saw["state"] = normal.state((await at.client.threads.get_state(thread))["values"])


@case("branches", "regenerate")
async def _(at):
    """Both answers are in the history, as siblings."""
    thread = await at.thread()
    await at.client.runs.wait(thread, "plain", input=say("say one", id="m-1"))
    checkpoint = await regenerate(at, thread)
    await at.client.runs.wait(thread, "plain", input=None, checkpoint=checkpoint)
    history = await at.client.threads.get_history(thread, limit=100)
    parents = [(s["parent_checkpoint"] or {}).get("checkpoint_id") for s in history]
    at.saw["siblings"] = parents.count(checkpoint["checkpoint_id"])
    answers = {m["id"] for s in history for m in s["values"].get("messages", ()) if m["type"] == "ai"}
    at.saw["answers"] = len(answers)


@case("edit", "regenerate")
async def _(at):
    """Edit the first question: run from the state before it."""
    thread = await at.thread()
    await at.client.runs.wait(thread, "plain", input=say("say one", id="m-1"))
    await at.client.runs.wait(thread, "plain", input=say("say two", id="m-2"))
    history = await at.client.threads.get_history(thread, limit=100)
    first = [s for s in history if any(m["id"] == "m-2" for m in s["values"].get("messages", ()))][-1]
    at.saw["edited"] = normal.state(
        await at.client.runs.wait(
            thread, "plain", input=say("echo", id="m-3"), checkpoint=first["parent_checkpoint"]
        )
    )


@case("search", "search")
async def _(at):
    """List threads with the request of agent-chat-ui."""
    mine = [await at.thread(metadata={"case": at.tag, "who": who}) for who in ("me", "me", "you")]
    await at.client.runs.wait(mine[0], "plain", input=say("say one"))
    found = await at.client.threads.search(metadata={"case": at.tag})
    at.saw["all"] = len(found)
    at.saw["newest first"] = found[0]["thread_id"] == mine[0]
    at.saw["one"] = normal.thread(found[0])
    at.saw["by who"] = len(await at.client.threads.search(metadata={"case": at.tag, "who": "me"}))
    at.saw["nobody"] = await at.client.threads.search(metadata={"case": at.tag, "who": "nobody"})
    at.saw["limit"] = len(await at.client.threads.search(metadata={"case": at.tag}, limit=2))
    at.saw["offset"] = len(await at.client.threads.search(metadata={"case": at.tag}, limit=2, offset=2))


@case("search_by_graph", "search")
async def _(at):
    """Each thread has the graph of its run."""
    for graph, given in (("plain", say("say one")), ("facts", {"topic": "Rome"})):
        await at.client.runs.wait(await at.thread(metadata={"case": at.tag}), graph, input=given)
    found = await at.client.threads.search(metadata={"case": at.tag, "graph_id": "facts"})
    at.saw["found"] = [normal.thread(t) for t in found]


@case("count", "search")
async def _(at):
    for who in ("me", "me", "you"):
        await at.thread(metadata={"case": at.tag, "who": who})
    at.saw["all"] = await at.client.threads.count(metadata={"case": at.tag})
    at.saw["mine"] = await at.client.threads.count(metadata={"case": at.tag, "who": "me"})


@case("delete", "deletion")
async def _(at):
    thread = await at.thread(metadata={"case": at.tag})
    await at.client.runs.wait(thread, "plain", input=say("say one"))
    run = (await at.client.runs.list(thread))[0]["run_id"]
    await at.client.threads.delete(thread)
    await at.tried("its run", at.client.runs.get(thread, run))
    at.saw["found"] = len(await at.client.threads.search(metadata={"case": at.tag}))


@case("delete_run", "deletion")
async def _(at):
    thread = await at.thread()
    await at.client.runs.wait(thread, "plain", input=say("say one"))
    run = (await at.client.runs.list(thread))[0]["run_id"]
    await at.client.runs.delete(thread, run)
    at.saw["runs"] = await at.client.runs.list(thread)


TICKS = {"count": 60, "gap": 0.05}


async def begun(at, thread):
    made = await at.client.runs.create(thread, "ticks", input=TICKS)
    at.saw["started"] = await at.until(thread, made["run_id"], "running")
    return made["run_id"]


@case("busy_reject", "two at once")
async def _(at):
    thread = await at.thread()
    first = await begun(at, thread)
    await at.tried(
        "second", at.client.runs.create(thread, "ticks", input={"count": 1}, multitask_strategy="reject")
    )
    at.saw["thread"] = (await at.client.threads.get(thread))["status"]
    await at.client.runs.cancel(thread, first, wait=True)


@case("busy_interrupt", "two at once", allow=("left nothing",))
async def _(at):
    thread = await at.thread()
    first = await begun(at, thread)
    second = await at.client.runs.wait(thread, "ticks", input={"count": 1}, multitask_strategy="interrupt")
    at.saw["of the first (left nothing)"] = second.pop("gap", None)
    at.saw["second"] = second
    at.saw["first"] = await at.until(thread, first)
    at.saw["statuses"] = sorted(r["status"] for r in await at.client.runs.list(thread))


@case("busy_rollback", "two at once")
async def _(at):
    thread = await at.thread()
    await begun(at, thread)
    at.saw["second"] = await at.client.runs.wait(
        thread, "ticks", input={"count": 1}, multitask_strategy="rollback"
    )
    at.saw["state"] = (await at.client.threads.get_state(thread))["values"]
    at.saw["runs that succeeded"] = len(await at.client.runs.list(thread, status="success"))


@case("busy_enqueue", "two at once")
async def _(at):
    thread = await at.thread()
    made = await at.client.runs.create(thread, "ticks", input={"count": 10, "gap": 0.05})
    at.saw["second"] = await at.client.runs.wait(
        thread, "ticks", input={"count": 1, "gap": 0}, multitask_strategy="enqueue"
    )
    at.saw["first"] = (await at.client.runs.get(thread, made["run_id"]))["status"]


@case("cancel", "cancel")
async def _(at):
    thread = await at.thread()
    run = await begun(at, thread)
    await at.client.runs.cancel(thread, run, wait=True)
    at.saw["run"] = await at.until(thread, run)
    at.saw["thread"] = (await at.client.threads.get(thread))["status"]


@case("cancel_seen", "cancel", allow=("cancelled",))
async def _(at):
    """The run's reader is informed."""
    thread = await at.thread()
    parts = []

    async def read():
        async for part in at.client.runs.stream(thread, "ticks", input=TICKS, stream_mode="custom"):
            parts.append(part)
            if part.event == "custom" and len(parts) == 4:
                at.reading.set()

    at.reading = asyncio.Event()
    reading = asyncio.create_task(read())
    await asyncio.wait_for(at.reading.wait(), 40)
    await at.client.runs.cancel(thread, parts[0].data["run_id"])
    await asyncio.wait_for(reading, 40)
    at.saw["ticks go on"] = sum(p.event == "custom" for p in parts) >= 55
    at.saw["told (cancelled)"] = [p.data.get("error") for p in parts if p.event == "error"]


@case("cancel_ended", "cancel")
async def _(at):
    thread = await at.thread()
    await at.client.runs.wait(thread, "plain", input=say("say one"))
    run = (await at.client.runs.list(thread))[0]["run_id"]
    with contextlib.suppress(Exception):
        await at.client.runs.cancel(thread, run)
    at.saw["status"] = (await at.client.runs.get(thread, run))["status"]
