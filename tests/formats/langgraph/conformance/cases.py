"""How a case is written.

    @case("plain_updates", "modes")
    async def _(at):
        thread = await at.thread()
        at.saw["run"] = normal.run(await at.stream(thread, "plain", say("say one two"), stream_mode="updates"))

`at` is one of the two servers; what the case puts into `at.saw` is its record. What it raises is recorded, too.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from conformance import normal
from conformance.cutting import Cutter

CASES: dict[str, Case] = {}


@dataclass(frozen=True)
class Case:
    """A case. `refusable`: requests that the gateway may refuse with a 4xx that names them, as
    docs/formats.md or the issue says."""

    name: str
    about: str
    run: Callable
    refusable: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    secs: float = 60


def case(
    name: str, about: str, *, refusable: tuple[str, ...] = (), allow: tuple[str, ...] = (), secs: float = 60
) -> Callable:
    """Mark a case. `allow`: names in compare.ALLOWED."""

    def mark(run: Callable) -> Callable:
        if name in CASES:
            raise ValueError(f"two cases are named {name}")
        CASES[name] = Case(name, about, run, refusable, allow, secs)
        return run

    return mark


def say(text: str, id: str = "", **more: Any) -> dict[str, Any]:
    """Return a run's input with a user message, and other keys of the state."""
    return {"messages": [{"type": "human", "content": text} | ({"id": id} if id else {})], **more}


@dataclass
class At:
    """One of the two servers, for one case."""

    url: str
    saw: dict[str, Any] = field(default_factory=dict)
    tag: str = field(default_factory=lambda: f"case-{uuid.uuid4().hex[:12]}")

    def __post_init__(self) -> None:
        from langgraph_sdk import get_client

        self.client = get_client(url=self.url, api_key=None)

    def sync(self):
        """Return the synchronous client."""
        from langgraph_sdk import get_sync_client

        return get_sync_client(url=self.url, api_key=None)

    def remote(self, graph: str, **more: Any):
        """Return a graph of the server as LangGraph's RemoteGraph."""
        from langgraph.pregel.remote import RemoteGraph

        return RemoteGraph(graph, url=self.url, **more)

    async def thread(self, **more: Any) -> str:
        """Create a thread and return its id."""
        return (await self.client.threads.create(**more))["thread_id"]

    async def stream(
        self, thread: str | None, graph: str, given: Any = None, **more: Any
    ) -> list[tuple[str, Any]]:
        """Stream a run and return its parts."""
        return [(p.event, p.data) async for p in self.client.runs.stream(thread, graph, input=given, **more)]

    async def join(self, thread: str, run: str, **more: Any) -> list[tuple[str, Any]]:
        """Return the parts of a run, read with join_stream."""
        return [(p.event, p.data) async for p in self.client.runs.join_stream(thread, run, **more)]

    async def until(self, thread: str, run: str, *states: str, secs: float = 20) -> str:
        """Wait until a run has one of these states; return its status."""
        end = asyncio.get_running_loop().time() + secs
        while True:
            now = (await self.client.runs.get(thread, run))["status"]
            if (
                now in (states or ("success", "error", "interrupted", "timeout"))
                or asyncio.get_running_loop().time() > end
            ):
                return now
            await asyncio.sleep(0.15)

    @asynccontextmanager
    async def cut(self, path: str, after: int, how: str = "rst", times: int = 1) -> AsyncIterator[At]:
        """Yield the same server behind a proxy. The proxy cuts answers to matching paths after this number of
        body bytes."""
        async with Cutter(self.url, re.compile(path), after, how, times) as cutter:
            other = At(cutter.url, self.saw, self.tag)
            other.cutter = cutter
            yield other

    async def tried(self, name: str, doing: Any) -> Any:
        """Record whether the request is refused, and with which status."""
        try:
            got = await doing
        except Exception as error:
            self.saw[name] = status_of(error)
            return None
        self.saw[name] = "done"
        return got


def status_of(error: BaseException) -> Any:
    """Return the HTTP status of an error, or its name."""
    answer = getattr(error, "response", None)
    return getattr(answer, "status_code", None) or getattr(error, "status_code", None) or type(error).__name__


__all__ = ["CASES", "At", "Case", "case", "normal", "say", "status_of"]
