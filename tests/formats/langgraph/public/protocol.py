"""The agent streaming protocol, with `client.threads.stream()` and as raw HTTP."""

from __future__ import annotations

import asyncio
import uuid

from conformance.cases import case, normal, say
from conformance.protocol import CHANNELS, command, events, texts

ADD = 'call add {"a": 1, "b": 2} then say It is $last for you'


async def told(at, graph, given, **more):
    async with at.client.threads.stream(assistant_id=graph) as thread:
        stream = thread.subscribe(CHANNELS)
        started = await thread.run.start(input=given, **more)
        at.saw["started"] = sorted(started)
        at.saw["events"] = normal.protocol(await events(stream))


@case("protocol_plain", "protocol")
async def _(at):
    await told(at, "plain", say("say one two three"))


@case("protocol_tool", "protocol")
async def _(at):
    await told(at, "helper", say(ADD))


@case("protocol_subgraph", "protocol")
async def _(at):
    await told(at, "nested", say("say hi there"))


@case("protocol_facts", "protocol")
async def _(at):
    await told(at, "facts", {"topic": "Rome"})


@case("protocol_failure", "protocol")
async def _(at):
    await told(at, "fails", say("x"))


@case("protocol_question", "protocol")
async def _(at):
    await told(at, "asker", say("say Dear Bob"))


@case("stream_messages", "threads.stream")
async def _(at):
    async with at.client.threads.stream(assistant_id="plain") as thread:
        await thread.run.start(input=say("say one two three"))
        at.saw["messages"] = await texts(thread.messages)
        at.saw["output"] = normal.state(await thread.output)


@case("stream_tokens", "threads.stream")
async def _(at):
    async with at.client.threads.stream(assistant_id="plain") as thread:
        await thread.run.start(input=say("say one two three"))

        async def tokens(message):
            return [token async for token in message.text]

        [found] = await asyncio.gather(*[asyncio.create_task(tokens(m)) async for m in thread.messages])
        at.saw["text"], at.saw["streams"] = "".join(found), len(found) > 1


@case("stream_values", "threads.stream")
async def _(at):
    async with at.client.threads.stream(assistant_id="facts") as thread:
        await thread.run.start(input={"topic": "Rome"})
        at.saw["last"] = [v async for v in thread.values][-1]
        at.saw["output"] = await thread.output


@case("stream_tool_calls", "threads.stream")
async def _(at):
    async with at.client.threads.stream(assistant_id="helper") as thread:
        await thread.run.start(input=say(ADD))
        calls = [call async for call in thread.tool_calls]
        outputs = [await call.output for call in calls]
        at.saw["calls"] = [[c.name, c.input] for c in calls]
        at.saw["outputs"] = [
            normal.text_of(o["content"]) if isinstance(o, dict) and "content" in o else o for o in outputs
        ]


@case("stream_subgraphs", "threads.stream")
async def _(at):
    async with at.client.threads.stream(assistant_id="nested") as thread:
        await thread.run.start(input=say("say hi there"))
        found = [(sub, asyncio.create_task(texts(sub.messages))) async for sub in thread.subgraphs]
        at.saw["subgraphs"] = [[sub.graph_name, sub.status, await said] for sub, said in found]


@case("stream_respond", "threads.stream")
async def _(at):
    """The graph asks, gets an answer and continues, over one open stream."""
    async with at.client.threads.stream(assistant_id="asker") as thread:
        stream = thread.subscribe(CHANNELS)
        await thread.run.start(input=say("say Dear Bob", id="m-1"))
        await events(stream)
        for _ in range(150):
            if thread.interrupted:
                break
            await asyncio.sleep(0.1)
        at.saw["interrupted"], at.saw["interrupts"] = thread.interrupted, len(thread.interrupts)
        await thread.run.respond("yes")
        at.saw["output"] = normal.state(await thread.output.with_timeout(30))


@case("stream_failure", "threads.stream")
async def _(at):
    async with at.client.threads.stream(assistant_id="fails") as thread:
        await thread.run.start(input=say("x"))
        try:
            at.saw["output"] = normal.state(await thread.output.with_timeout(30))
        except TimeoutError:
            at.saw["output"] = "no end"
        except Exception:
            at.saw["output"] = "raises"


@case("stream_twice", "threads.stream")
async def _(at):
    """Two runs of one thread: the second continues from the first."""
    name = str(uuid.uuid4())
    for text, messages in (("say one", 2), ("echo", 4)):
        async with at.client.threads.stream(name, assistant_id="plain") as thread:
            await thread.run.start(input=say(text))
            for _ in range(150):
                state = (await at.client.threads.get_state(name))["values"]
                if len(state.get("messages", ())) == messages:
                    break
                await asyncio.sleep(0.1)
    at.saw["state"] = normal.state(state)


@case("stream_reattach", "threads.stream")
async def _(at):
    """A second reader that connects in the middle gets all events from the start, with the same ids."""
    name = str(uuid.uuid4())
    async with at.client.threads.stream(name, assistant_id="plain") as thread:
        first = thread.subscribe(["messages", "lifecycle"])
        await thread.run.start(input=say("slow 30 0.05"))
        reading = asyncio.create_task(events(first, 40))
        await asyncio.sleep(1.5)
        async with at.client.threads.stream(name, assistant_id="plain") as other:
            again = await events(other.subscribe(["messages", "lifecycle"]), 40)
        once = await reading
    at.saw["again"] = {k: v for k, v in normal.protocol(again).items() if k.startswith("messages")}

    def ids(found):
        return [e["event_id"] for e in found if e["method"] == "messages"]

    at.saw["same ids"] = ids(again) == ids(once)


@case("stream_cut", "threads.stream cut")
async def _(at):
    async with (
        at.cut(r"/stream/events", 3000, "rst") as through,
        through.client.threads.stream(assistant_id="plain") as thread,
    ):
        await thread.run.start(input=say("slow 40 0.04"))
        at.saw["messages"] = await texts(thread.messages)
        at.saw["was cut"] = through.cutter.cuts > 0


@case("stream_sync", "threads.stream")
async def _(at):
    def asked():
        with at.sync().threads.stream(assistant_id="plain") as thread:
            thread.run.start(input=say("say one two three"))
            return [str(message.text) for message in thread.messages]

    at.saw["messages"] = await asyncio.to_thread(asked)


@case("commands_refused", "on the wire")
async def _(at):
    thread = str(uuid.uuid4())
    at.saw["unknown method"] = await command(at, thread, "no.such", {}, 7)
    at.saw["no id"] = (await command(at, thread, "run.start", {}, "x"))["status"]
    at.saw["no assistant"] = await command(at, thread, "run.start", {})
    nothing = await command(
        at, thread, "input.respond", {"interrupt_id": "x" * 8, "namespace": [], "response": 1}
    )
    at.saw["no interrupt"] = nothing | {"error": nothing["error"] in ("no_such_run", "no_such_interrupt")}
    not_json = await at.client.http.client.post(f"/threads/{thread}/commands", content=b"{")
    at.saw["no JSON"] = not_json.status_code


@case("events_refused", "on the wire")
async def _(at):
    thread = str(uuid.uuid4())
    for name, body in (
        ("none", {}),
        ("empty", {"channels": []}),
        ("unknown", {"channels": ["values", "nonsense"]}),
    ):
        answer = await at.client.http.client.post(f"/threads/{thread}/stream/events", json=body)
        at.saw[name] = answer.status_code


@case("events_on_the_wire", "on the wire")
async def _(at):
    """The frame: `event` is the method, `id` the seq; a subscription before the first run is no 404."""
    thread = str(uuid.uuid4())
    lines, opened = [], asyncio.Event()

    async def read():
        async with at.client.http.client.stream(
            "POST", f"/threads/{thread}/stream/events", json={"channels": ["lifecycle"]}
        ) as answer:
            at.saw["status"], at.saw["type"] = (
                answer.status_code,
                answer.headers["content-type"].partition(";")[0],
            )
            opened.set()
            async for line in answer.aiter_lines():
                lines.append(line)
                if '"completed"' in line:
                    return

    reading = asyncio.create_task(read())
    await asyncio.wait_for(opened.wait(), 40)
    started = await command(at, thread, "run.start", {"assistant_id": "facts", "input": {"topic": "Rome"}}, 3)
    at.saw["started"] = started
    await asyncio.wait_for(reading, 40)
    at.saw["events"] = [x for x in lines if x.startswith("event:")]
    at.saw["ids"] = all(x[3:].strip().isdigit() for x in lines if x.startswith("id:")) and any(
        x.startswith("id:") for x in lines
    )


@case("events_since", "on the wire")
async def _(at):
    """`since` gives only later events."""
    import json

    thread = str(uuid.uuid4())
    opened, begun = asyncio.Event(), asyncio.Event()

    async def read(**more):
        seqs = []
        body = {"channels": ["lifecycle", "values"], **more}
        async with at.client.http.client.stream(
            "POST", f"/threads/{thread}/stream/events", json=body
        ) as answer:
            opened.set()
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    event = json.loads(line[5:])
                    seqs.append(event["seq"])
                    if len(seqs) > 1:
                        begun.set()
                    if event["params"]["data"].get("event") == "completed":
                        return seqs
        return seqs

    reading = asyncio.create_task(read())
    await asyncio.wait_for(opened.wait(), 40)
    await command(at, thread, "run.start", {"assistant_id": "ticks", "input": {"count": 30, "gap": 0.05}})
    await asyncio.wait_for(begun.wait(), 40)
    again = asyncio.create_task(read(since=1))
    seqs, later = await asyncio.wait_for(asyncio.gather(reading, again), 40)
    at.saw["some"], at.saw["all but the first"] = len(seqs) > 2, later == seqs[1:]
