"""Chats of Vercel's AI SDK, npm `ai` 5, 6 and 7, in one process of Node: `tests/node/ai_sdk.mjs`.

PYTEST_DONT_REWRITE: it is imported before pytest meets it as a plugin.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from tests.support.programs import Talk, talking

VERSIONS = (5, 6, 7)
_numbers = count()


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat of one of the versions; `name` is its id."""

    talk: Talk = field(repr=False)
    version: int
    name: str

    async def tell(self, verb: str, **given: Any) -> None:
        """A command of `ai_sdk.mjs`."""
        await self.talk.tell(json.dumps({"chat": self.name, "does": verb, **given}))

    def did(self, verb: str) -> list[dict[str, Any]]:
        """What it was like after each such command."""
        return [line for line in self.talk.lines if line["chat"] == self.name and line.get("did") == verb]

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
        """Wait until the text that stands has come to be this so often."""
        line = {"chat": self.name, "text": text}
        await self.talk.until(lambda lines: lines.count(line) >= times)


Opens = Callable[..., Awaitable[Chat]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def talk() -> AsyncIterator[Talk]:
    """The clients' process."""
    async with talking("ai_sdk.mjs") as talk:
        yield talk


@pytest.fixture
def opens(talk: Talk) -> Opens:
    """Opens a chat at a gateway."""

    async def opened(url: str, version: int, **options: Any) -> Chat:
        chat = Chat(talk, version, f"chat-{version}@{next(_numbers)}")
        api = f"{url.rstrip('/')}/api/chat"
        await chat.does("open", version=version, api=api, **options)
        return chat

    return opened


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    """Each of npm `ai`'s major versions in turn."""
    value: int = request.param
    return value
