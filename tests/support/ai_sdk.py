"""Chats of Vercel's AI SDK (npm `ai` 5, 6 and 7) in one Node process, `tests/node/ai_sdk.mjs`.

PYTEST_DONT_REWRITE: this module is imported before pytest sees it as a plugin.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from tests.support.programs import Driven, Talk, talking

VERSIONS = (5, 6, 7)
_numbers = count()


@dataclass(frozen=True, slots=True)
class Chat(Driven):
    """A chat of one version of the SDK, in the Node process of `ai_sdk.mjs`. Its `name` is its id."""

    KIND = "chat"
    version: int


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
        chat = Chat(talk, f"chat-{version}@{next(_numbers)}", version)
        api = f"{url.rstrip('/')}/api/chat"
        await chat.does("open", version=version, api=api, **options)
        return chat

    return opened


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    """Run the test with each major version of npm `ai`."""
    value: int = request.param
    return value
