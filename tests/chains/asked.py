"""The gateway's side: the events of a stream, folded as docs/protocol.md says, and the turns of a LangGraph
thread."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.chains.cases import Case, Talk
from tests.chains.recorder import NOTHING, finish_class

TERMINAL = ("done", "failed", "cancelled")
ITS_OWN = ("sources", "reasoning", "result")  # custom events that the gateway itself makes
PLACE = ("stage", "deployment", "delta_content")


@dataclass
class Seen:
    """The data that the gateway has sent."""

    # by stage or node, as far as the events distinguish them
    texts: dict[str, list[str]] = field(default_factory=dict)
    by_run: dict[str, list[str]] = field(default_factory=dict)  # the same, distinguished by `run` only
    pieces: int = 0
    tools: list[dict] = field(default_factory=list)
    customs: list[tuple[str, Any]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    reasoning: str = ""
    interrupts: list[dict] = field(default_factory=list)
    usage: list[int] = field(default_factory=lambda: [0, 0])
    finish: str = "stop"
    error: str = ""
    said: str = ""
    result: Any = NOTHING  # the last result
    results: dict[str, list] = field(default_factory=dict)  # results by stage
    unfinished: list[str] = field(default_factory=list)


async def seen(case: Case, client: httpx.AsyncClient) -> Seen:
    """Ask the gateway `times` times; return the last result."""
    own = Seen()
    for _ in range(case.times):
        own = await ask(client, {"chain": case.name, **case.body})
    return own


async def ask(
    client: httpx.AsyncClient,
    body: dict,
    *,
    headers: dict | None = None,
    seconds: float = 60,
    begun: asyncio.Event | None = None,
) -> Seen:
    """Start a stream and follow it to its end. Set `begun` when the stream's first event has arrived."""
    try:
        async with asyncio.timeout(seconds):
            return fold(await _follow(client, body, headers or {}, begun or asyncio.Event()))
    except Refused as refused:
        return Seen(error=f"HTTP {refused.status}", said=str(refused))
    except TimeoutError:
        return Seen(error="no end", said=f"no terminal event in {seconds:.0f} s")
    except httpx.HTTPError as error:
        return Seen(error="connection lost", said=type(error).__name__)


class Refused(Exception):
    """The POST was refused."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text[:200])
        self.status = status


async def _follow(
    client: httpx.AsyncClient, body: dict, headers: dict, begun: asyncio.Event
) -> list[tuple[str, str, Any]]:
    events: list[tuple[str, str, Any]] = []
    wants = {"accept": "text/event-stream", **headers}
    async with client.stream("POST", "/stream", json=body, headers=wants) as answer:
        if answer.status_code != 200:
            raise Refused(answer.status_code, (await answer.aread()).decode())
        stream = answer.headers["x-stream-id"]
        try:
            await _read(answer, events, begun)
        except httpx.HTTPError:
            if not events:
                raise
    # the connection was closed before the end of the stream
    while not events or events[-1][1] not in TERMINAL:
        await asyncio.sleep(0.2)
        at = {"last-event-id": events[-1][0]} if events else {}
        async with client.stream("GET", f"/stream/{stream}", headers=wants | at) as answer:
            if answer.status_code != 200:
                raise Refused(answer.status_code, "while following")
            await _read(answer, events, begun)
    return events


async def _read(answer: httpx.Response, events: list, begun: asyncio.Event) -> None:
    frame: dict[str, str] = {}
    async for line in _lines(answer):
        if not line:
            if "data" in frame:
                events.append((frame.get("id", ""), frame.get("event", ""), json.loads(frame["data"])))
                begun.set()
            frame = {}
        else:
            name, _, value = line.partition(":")
            frame[name] = value.removeprefix(" ")


async def _lines(answer: httpx.Response):
    """Yield lines that end in a line feed only (httpx splits at other separators too)."""
    rest = b""
    async for piece in answer.aiter_bytes():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.decode()


def fold(events: list[tuple[str, str, Any]]) -> Seen:
    """Return the data of all events that are not void at the end."""
    standing: list[tuple[str, str, Any]] = []
    for event in events:
        if event[1] == "reset":  # stages run in turn: all later events of the stage are void
            after = int(event[2].get("discard_after", "-1").split("-")[0])
            standing = [e for e in standing if int(e[0].split("-")[0]) <= after]
        else:
            standing.append(event)
    own = Seen()
    calls: dict[str, dict] = {}
    runs: dict[Any, str] = {}
    plain: dict[Any, str] = {}
    open_: list[str] = []
    for _, kind, data in standing:
        if kind == "":
            key = (data["stage"], tuple(sorted((k, str(v)) for k, v in data.items() if k not in PLACE)))
            runs[key] = runs.get(key, "") + data["delta_content"]
            run = (data["stage"], data.get("run", 0))
            plain[run] = plain.get(run, "") + data["delta_content"]
            own.pieces += 1
        elif kind == "stage":
            name = f"{data['name']} {data['run']}"
            if data["state"] == "started":
                open_.append(name)
            elif name in open_:
                open_.remove(name)
        elif kind == "tool":
            _tool(own, calls, data)
        elif kind == "custom":
            _custom(own, data)
        elif kind == "done":
            usage = data.get("usage") or {}
            own.usage = [usage.get("input_tokens", 0), usage.get("output_tokens", 0)]
            own.finish = finish_class(data.get("finish_reason") or "")
            own.interrupts = data.get("interrupts") or []
        elif kind == "failed":
            own.error, own.said = data["code"], data["message"]
        elif kind == "cancelled":
            own.error = "cancelled"
    for texts, kept in ((runs, own.texts), (plain, own.by_run)):
        for (stage, _), text in texts.items():
            kept.setdefault(stage, []).append(text)
    own.unfinished = open_
    return own


def _tool(own: Seen, calls: dict, data: dict) -> None:
    key = data["call_id"]
    if data["state"] == "started":
        calls[key] = {"name": data["name"], "input": data.get("input"), "state": "started"}
        own.tools.append(calls[key])
    else:
        call = calls.get(key) or {"name": data["name"], "input": NOTHING}
        if call not in own.tools:
            own.tools.append(call)
        call["state"], call["output"] = data["state"], data.get("output")


def _custom(own: Seen, data: dict) -> None:
    name, said = data["name"], data["data"]
    if name not in ITS_OWN:
        own.customs.append((name, said))
    elif name == "sources":
        own.sources += [d["text"] for d in said["documents"]]
    elif name == "reasoning":
        own.reasoning += said["delta"]
    else:
        own.result = said
        own.results.setdefault(data["stage"], []).append(said)


async def seen_turns(talk: Talk, url: str) -> list[Seen]:
    """Run the same turns with LangGraph's own SDK, in one thread."""
    from langgraph_sdk import get_client

    client = get_client(url=url)
    thread = (await client.threads.create())["thread_id"]
    turns: list[Seen] = []
    for turn in talk.turns:
        own = Seen()
        asked: dict[str, Any] = {"input": turn.input}
        if turn.command is not None:
            before = turns[-1].interrupts if turns else []
            value = turn.command(before) if callable(turn.command) else turn.command
            asked = {"input": None, "command": {"resume": value}}
        if talk.params:
            asked |= {"context": talk.params} if talk.context else {"config": {"configurable": talk.params}}
        try:
            async with asyncio.timeout(40):
                modes: list[Any] = ["messages-tuple", "values", "custom"]
                await _turn(own, client.runs.stream(thread, talk.name, stream_mode=modes, **asked))
        except TimeoutError:
            own.error = "no end"
        except Exception as error:  # the SDK's own exception classes
            answer = getattr(error, "response", None)
            own.error = f"HTTP {answer.status_code}" if answer is not None else type(error).__name__
            own.said = str(error)[:200]
        turns.append(own)
    return turns


async def _turn(own: Seen, parts: Any) -> None:
    messages: dict[str, dict] = {}
    async for part in parts:
        if part.event.startswith("messages"):
            message, metadata = part.data
            if message["type"] in ("AIMessageChunk", "ai"):
                known = messages.setdefault(
                    message["id"], {"node": metadata.get("langgraph_node", ""), "text": ""}
                )
                content = message["content"]
                known["text"] += (
                    content if isinstance(content, str) else "".join(b.get("text", "") for b in content)
                )
        elif part.event == "custom":
            said = part.data
            named = isinstance(said, dict) and set(said) == {
                "name",
                "stage",
                "data",
            }  # else an event of the graph's own writer
            name, data = (said["name"], said["data"]) if named else ("custom", said)
            if not named or name not in ITS_OWN:
                own.customs.append((name, data))
        elif part.event == "values":
            own.result = {k: v for k, v in part.data.items() if k != "__interrupt__"}
            own.interrupts = part.data.get("__interrupt__") or []
        elif part.event == "error":
            own.error, own.said = str(part.data.get("error")), str(part.data.get("message"))[:200]
    for one in messages.values():
        if one["text"]:
            own.texts.setdefault(one["node"], []).append(one["text"])
