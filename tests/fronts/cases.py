"""Which front end does what: each cell of the table is a case that runs, or the reason why there is none.

A front end that tests of the suite run already has its cells from these tests: `Tested`. One that has
packages of its own here is run by a program: `Program`. A new one is one more entry of `FRONTS`.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.fronts.packages import HERE, Places
from tests.hosts import TEXTS
from tests.support.clean_ender import CleanEnder
from tests.support.cutter import Cutter
from tests.support.model_server import ModelServer, script

CASES = ("stream", "conversation", "cut (RST)", "clean end (FIN)", "join", "failure", "refusal", "interrupt")
LIMIT_SECONDS = 120
SAID = "".join(TEXTS[:5])
NO_IDS = (
    "reads no `id:` and asks nothing again: `runAgent` fails, and its user repeats it with the same `runId`"
)


@dataclass(frozen=True, slots=True)
class Served:
    """The gateway, its model, and where the programs are."""

    url: str
    model: ModelServer
    places: Places


Case = Callable[[Served, "Program"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Program:
    """A front end that a program runs. `cases`: how each is judged, or why the client cannot."""

    name: str
    version: str
    command: Callable[[Places], Sequence[str]]
    cases: Mapping[str, Case | str]
    takes_ids: bool = True  # the program is told a thread and a run

    async def ask(
        self, served: Served, url: str, text: str, verb: str = "ask", chain: str = "chat", run: str = "r"
    ) -> Any:
        """What it shows at the end."""
        where = f"{url.rstrip('/')}/agui/{chain}"
        ids = (f"thread-{uuid.uuid4()}", run) if self.takes_ids else ()
        command = [*self.command(served.places), where, *ids, text, verb]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert out, err.decode()[-600:]
        return json.loads(out.splitlines()[-1])


@dataclass(frozen=True, slots=True)
class Tested:
    """A front end that tests of the suite run: the tests of each case, or why the client cannot."""

    name: str
    version: str
    cases: Mapping[str, Sequence[str] | str] = field(default_factory=dict)


async def streams(served: Served, front: Program) -> None:
    before = len(served.model.requests)
    told = await front.ask(served, served.url, script(TEXTS[:5]))
    assert (told["shown"], told["error"]) == (SAID, None), told
    assert len(served.model.requests) == before + 1


async def converses(served: Served, front: Program) -> None:
    told = await front.ask(served, served.url, script(["a", "b"]), "twice")
    assert (told["shown"], told["error"]) == ("ab", None), told
    roles = [one["role"] for one in served.model.requests[-1]["messages"] if one["role"] != "system"]
    assert roles == ["user", "assistant", "user"], roles


def comes_back(kind: type[Cutter] | type[CleanEnder]) -> Case:
    """Cut at random bytes it has the exact text, and the model was asked once."""

    async def case(served: Served, front: Program) -> None:
        before, bounds = len(served.model.requests), [random.randrange(700, 1500) for _ in range(3)]
        async with AsyncExitStack() as stack:
            between: Any = await stack.enter_async_context(kind(served.url, bounds))
            told = await front.ask(served, between.url, script(TEXTS[:5]))
        assert (told["shown"], told["error"]) == (SAID, None), (bounds, told)
        assert len(told["asked"]) > 1, told
        assert len(served.model.requests) == before + 1

    return case


async def joins(served: Served, front: Program) -> None:
    run = f"run-{uuid.uuid4()}"
    body = {
        "threadId": "t",
        "runId": run,
        "messages": [{"id": "u", "role": "user", "content": script(["a", "b"])}],
    }
    async with httpx.AsyncClient() as http:
        await http.post(f"{served.url}/agui/chat", json=body)
    told = await front.ask(served, served.url, "", "join", run=run)
    assert (told["shown"], told["error"]) == ("ab", None), told


async def fails(served: Served, front: Program) -> None:
    told = await front.ask(served, served.url, script(["a"], status=400))
    assert "model" in str(told["error"]), told


async def is_refused(served: Served, front: Program) -> None:
    told = await front.ask(served, served.url, "x", chain="nobody")
    assert "404" in str(told["error"]), told


async def is_asked(served: Served, front: Program) -> None:
    told = await front.ask(served, served.url, "x", chain="asks")
    assert (told["error"], told["pending"]) == (None, 1), told


def _node(client: str) -> Callable[[Places], Sequence[str]]:
    return lambda places: ("node", str(places.node / "clients.mjs"), client)


_AGUI = "tests/test_format_agui.py::test_"
_GRAPHS = "tests/test_format_agui_graphs.py::test_"
FRONTS: Sequence[Program | Tested] = (
    Tested(
        "@ag-ui/client (HttpAgent)",
        "1.0.0",
        {
            "stream": [f"{_AGUI}an_agent_asks_and_asks_again"],
            "conversation": [f"{_AGUI}an_agent_asks_and_asks_again"],
            "cut (RST)": [f"{_AGUI}cut_at_random_bytes", f"{_AGUI}an_agent_without_these_lines"],
            "clean end (FIN)": [f"{_AGUI}cut_at_random_bytes", f"{_AGUI}an_agent_without_these_lines"],
            "join": [f"{_AGUI}a_page_that_is_loaded_again"],
            "failure": [f"{_AGUI}a_failure_is_an_error"],
            "refusal": [f"{_AGUI}a_failure_is_an_error"],
            "interrupt": [f"{_GRAPHS}a_question_is_answered", f"{_GRAPHS}leave_to_call_tools"],
        },
    ),
    Program(
        "@tanstack/ai-client",
        "0.33.2",
        _node("tanstack"),
        {
            "stream": streams,
            "conversation": converses,
            "cut (RST)": comes_back(Cutter),
            "clean end (FIN)": comes_back(CleanEnder),
            "join": joins,
            "failure": fails,
            "refusal": is_refused,
            "interrupt": is_asked,
        },
    ),
    Program(
        "@copilotkit/core, of @ag-ui/client 0.0.59",
        "1.75.0",
        _node("copilotkit"),
        {
            "stream": streams,
            "conversation": converses,
            "cut (RST)": NO_IDS,
            "clean end (FIN)": NO_IDS,
            "join": "asks CopilotKit's own runtime for it, which is another server",
            "failure": fails,
            "refusal": is_refused,
            "interrupt": is_asked,
        },
    ),
    Program(
        "agent-framework-ag-ui",
        "1.7.0",
        lambda places: (str(places.python), str(HERE / "agent_framework_client.py")),
        {
            "stream": streams,
            "conversation": converses,
            "cut (RST)": "reads no `id:`, names each run anew, and raises",
            "clean end (FIN)": "takes a clean end for the end",
            "join": "has no call for it",
            "failure": fails,
            "refusal": "raises `ResponseNotRead`, whatever the refusal says",
            "interrupt": "tells of it by the update's raw event alone",
        },
        takes_ids=False,
    ),
)
