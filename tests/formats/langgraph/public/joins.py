"""Reconnecting: the variants of join_stream, the stream of a thread, and cut connections."""

from __future__ import annotations

import asyncio

from conformance.cases import case, normal, say

TICKS = {"count": 40, "gap": 0.05}


async def begun(at, thread, **more):
    """Start a run and wait for its first tick."""
    made = await at.client.runs.create(thread, "ticks", input=TICKS, stream_resumable=True, **more)
    await at.until(thread, made["run_id"], "running")
    return made["run_id"]


def ticks(parts):
    """Return the ticks as a range, if they are in order and none is missing."""
    seen = [d["tick"] for e, d in parts if e == "custom"]
    return {
        "in order": seen == list(range(seen[0], seen[-1] + 1)) if seen else None,
        "last": seen[-1] if seen else None,
    }


@case("join_default", "join")
async def _(at):
    """Without a mode, join uses the modes of the run's start."""
    thread = await at.thread()
    run = await begun(at, thread, stream_mode=["custom", "values"])
    parts = await at.join(thread, run)
    at.saw["ticks"] = ticks(parts)
    at.saw["values"] = [d for e, d in parts if e == "values"][-1:]


@case("join_from_start", "join")
async def _(at):
    thread = await at.thread()
    run = await begun(at, thread, stream_mode=["custom", "values"])
    parts = await at.join(thread, run, last_event_id="-1")
    at.saw["all"] = normal.run(parts)


@case("join_mode", "join")
async def _(at):
    """A mode on join filters the events."""
    thread = await at.thread()
    run = await begun(at, thread, stream_mode=["custom", "values", "updates"])
    parts = await at.join(thread, run, stream_mode=["updates"], last_event_id="-1")
    at.saw["events"] = sorted({e for e, _ in parts if e not in ("end", "metadata")})
    at.saw["updates"] = [d for e, d in parts if e == "updates"]


@case("join_after_end", "join")
async def _(at):
    """The stream of an ended run can be read from its start, while the stream is kept."""
    thread = await at.thread()
    made = await at.client.runs.create(
        thread, "plain", input=say("say one two"), stream_mode=["updates", "values"], stream_resumable=True
    )
    await at.client.runs.join(thread, made["run_id"])
    at.saw["all"] = normal.run(await at.join(thread, made["run_id"], last_event_id="-1"))


@case("join_from_the_middle", "join")
async def _(at):
    thread = await at.thread()
    run = await begun(at, thread, stream_mode=["custom"])
    seen = []
    async for part in at.client.runs.join_stream(thread, run, last_event_id="-1"):
        seen.append(part)
        if part.event == "custom" and part.data["tick"] == 9:
            break
    rest = [p async for p in at.client.runs.join_stream(thread, run, last_event_id=seen[-1].id)]
    at.saw["rest"] = [p.data["tick"] for p in rest if p.event == "custom"]


@case("join_two_readers", "join")
async def _(at):
    thread = await at.thread()
    run = await begun(at, thread, stream_mode=["custom"])
    both = await asyncio.gather(*(at.join(thread, run, last_event_id="-1") for _ in range(2)))
    at.saw["ticks"] = [[d["tick"] for e, d in parts if e == "custom"] for parts in both]


@case("thread_stream", "of a thread")
async def _(at):
    """`GET /threads/{id}/stream` sends the runs of the thread as they happen."""
    thread = await at.thread()
    parts = []

    async def read():
        async for part in await at.client.threads.join_stream(thread, stream_mode=["run_modes"]):
            parts.append(part)
            if part.event == "custom" and part.data == {"tick": 4}:
                return

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.5)
    await at.client.runs.create(thread, "ticks", input={"count": 5}, stream_mode=["custom"])
    await asyncio.wait_for(reading, 40)
    at.saw["ticks"] = [p.data["tick"] for p in parts if p.event == "custom"]


async def cut_once(at, how, after, path=r"/stream$", graph="ticks", given=TICKS, mode=("custom", "values")):
    thread = await at.thread()
    async with at.cut(path, after, how) as through:
        parts = await through.stream(thread, graph, given, stream_mode=list(mode), stream_resumable=True)
        at.saw["was cut"] = through.cutter.cuts > 0
    return parts


@case("cut_rst", "cut")
async def _(at):
    """The connection is reset in the middle; the client reconnects by itself."""
    at.saw["all"] = normal.run(await cut_once(at, "rst", 1200))


@case("cut_in_text", "cut")
async def _(at):
    given, modes = say("slow 60 0.03"), ("messages-tuple", "values")
    at.saw["all"] = normal.run(await cut_once(at, "rst", 7000, graph="plain", given=given, mode=modes))


@case("cut_thrice", "cut")
async def _(at):
    thread = await at.thread()
    async with at.cut(r"/stream", 1100, "rst", 3) as through:
        parts = await through.stream(
            thread, "ticks", TICKS, stream_mode=["custom", "values"], stream_resumable=True
        )
        at.saw["was cut"] = through.cutter.cuts > 0
    at.saw["all"] = normal.run(parts)
