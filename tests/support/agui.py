"""Agents of npm `@ag-ui/client`, in one process of Node, and what independent checks say of a run's events.

PYTEST_DONT_REWRITE: it is imported before pytest meets it as a plugin.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from ag_ui.core import Event
from ag_ui_validate import create_validator
from pydantic import TypeAdapter

from tests.support.programs import Talk, talking

_numbers = count()
_EVENT: TypeAdapter[Any] = TypeAdapter(Event)


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent; `name` is its thread's id too."""

    talk: Talk = field(repr=False)
    name: str

    async def tell(self, verb: str, **given: Any) -> None:
        """A command of `agui.mjs`."""
        await self.talk.tell(json.dumps({"agent": self.name, "does": verb, **given}))

    def did(self, verb: str) -> list[dict[str, Any]]:
        """What it was like after each such command."""
        return [line for line in self.talk.lines if line["agent"] == self.name and line.get("did") == verb]

    async def does(self, verb: str, **given: Any) -> dict[str, Any]:
        """The same, and what it is like when that is done."""
        times = len(self.did(verb)) + 1
        await self.tell(verb, **given)
        return await self.ends(verb, times)

    async def ends(self, verb: str, times: int = 1) -> dict[str, Any]:
        """What it is like when so many of such commands, told before, are done."""
        await self.talk.until(lambda _: len(self.did(verb)) >= times)
        return self.did(verb)[-1]

    async def shows(self, text: str, times: int = 1) -> None:
        """Wait until the text of its last message has come to be this so often."""
        line = {"agent": self.name, "text": text}
        await self.talk.until(lambda lines: lines.count(line) >= times)


Meets = Callable[..., Awaitable[Agent]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def agents() -> AsyncIterator[Talk]:
    """The agents' process."""
    async with talking("agui.mjs") as talk:
        yield talk


@pytest.fixture
def meets(agents: Talk) -> Meets:
    """Makes an agent of a gateway."""

    async def met(url: str, chain: str = "chat", thread: str = "", **options: Any) -> Agent:
        agent = Agent(agents, f"agent-{next(_numbers)}")
        where = f"{url.rstrip('/')}/agui/{chain}"
        await agent.does("open", url=where, threadId=thread or agent.name, **options)
        return agent

    return met


def frames_of(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The events of a body, with their ids."""
    found = []
    for frame in body.decode().removesuffix("\n\n").split("\n\n"):
        lines = [line for line in frame.split("\n") if line != ":"]
        [first, second] = lines
        found.append((first.removeprefix("id: "), json.loads(second.removeprefix("data: "))))
    return found


def checked(events: Sequence[dict[str, Any]]) -> list[str]:
    """The kinds of a whole run's events, which both independent checks find right.

    The protocol's own models take members that they do not know: these are looked for, too.
    """
    for event in events:
        known = _EVENT.validate_python(event)
        assert not known.model_extra, event
    validator = create_validator()
    for event in events:
        validator.feed(event)
    validator.finalize()
    report = validator.report()
    assert not [one for one in report.diagnostics if one.severity in ("error", "warning")], report.diagnostics
    return [event["type"] for event in events]


def text_of(told: dict[str, Any]) -> str:
    """What the assistant's last message says."""
    [*_, last] = [one for one in told["messages"] if one["role"] == "assistant"]
    return str(last.get("content", ""))
