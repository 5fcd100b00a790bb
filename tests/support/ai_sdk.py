"""Chats of Vercel's AI SDK (npm `ai` 5, 6 and 7) in one Node process, `tests/node/ai_sdk.mjs`.

PYTEST_DONT_REWRITE: this module is imported before pytest sees it as a plugin.
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
    """A chat of one version of the SDK. Its `name` is its id."""

    talk: Talk = field(repr=False)
    version: int
    name: str

    async def tell(self, verb: str, **given: Any) -> None:
        """Send a command to `ai_sdk.mjs`."""
        await self.talk.tell(json.dumps({"chat": self.name, "does": verb, **given}))

    def did(self, verb: str) -> list[dict[str, Any]]:
        """Return the reported states of the chat, one for each finished command of this kind."""
        return [line for line in self.talk.lines if line["chat"] == self.name and line.get("did") == verb]

    async def does(self, verb: str, **given: Any) -> dict[str, Any]:
        """Send a command to `ai_sdk.mjs`, wait until it is done, and return the state of the chat."""
        times = len(self.did(verb)) + 1
        await self.tell(verb, **given)
        return await self.ends(verb, times)

    async def ends(self, verb: str, times: int = 1) -> dict[str, Any]:
        """Wait until `times` commands of this kind are done; return the chat's state after the last one."""
        await self.talk.until(lambda _: len(self.did(verb)) >= times)
        return self.did(verb)[-1]

    async def shows(self, text: str, times: int = 1) -> None:
        """Wait until the displayed text has changed to this text `times` times."""
        line = {"chat": self.name, "text": text}
        await self.talk.until(lambda lines: lines.count(line) >= times)


Opens = Callable[..., Awaitable[Chat]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def talk() -> AsyncIterator[Talk]:
    """Start the Node process of the clients."""
    async with talking("ai_sdk.mjs") as talk:
        yield talk


@pytest.fixture
def opens(talk: Talk) -> Opens:
    """Return a function that opens a chat at a gateway."""

    async def opened(url: str, version: int, **options: Any) -> Chat:
        chat = Chat(talk, version, f"chat-{version}@{next(_numbers)}")
        api = f"{url.rstrip('/')}/api/chat"
        await chat.does("open", version=version, api=api, **options)
        return chat

    return opened


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    """Run the test with each major version of npm `ai`."""
    value: int = request.param
    return value
