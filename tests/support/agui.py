"""Agents of npm `@ag-ui/client` in one Node process, and two independent checks of the events of a run.

PYTEST_DONT_REWRITE: this module is imported before pytest sees it as a plugin.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from ag_ui.core import Event
from ag_ui_validate import create_validator
from pydantic import TypeAdapter

from tests.support.programs import Driven, Talk, talking

_numbers = count()
_EVENT: TypeAdapter[Any] = TypeAdapter(Event)


@dataclass(frozen=True, slots=True)
class Agent(Driven):
    """An agent in the Node process of `agui.mjs`. Its `name` is also the id of its thread."""

    KIND = "agent"


Meets = Callable[..., Awaitable[Agent]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def agents() -> AsyncIterator[Talk]:
    """Start the Node process of the agents."""
    async with talking("agui.mjs") as talk:
        yield talk


@pytest.fixture
def meets(agents: Talk) -> Meets:
    """Return a function that makes an agent for a gateway."""

    async def met(url: str, chain: str = "chat", thread: str = "", **options: Any) -> Agent:
        agent = Agent(agents, f"agent-{next(_numbers)}")
        where = f"{url.rstrip('/')}/agui/{chain}"
        await agent.does("open", url=where, threadId=thread or agent.name, **options)
        return agent

    return met


def frames_of(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a response body, with their ids."""
    found = []
    for frame in body.decode().removesuffix("\n\n").split("\n\n"):
        lines = [line for line in frame.split("\n") if line != ":"]
        [first, second] = lines
        found.append((first.removeprefix("id: "), json.loads(second.removeprefix("data: "))))
    return found


def checked(events: Sequence[dict[str, Any]]) -> list[str]:
    """Check the events of a whole run with both independent checks, and return the kinds of the events.

    The protocol's own models accept members that they do not know, so this function looks for such members
    too.
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
    """Return the text of the assistant's last message."""
    [*_, last] = [one for one in told["messages"] if one["role"] == "assistant"]
    return str(last.get("content", ""))
