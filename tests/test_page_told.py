"""The page in a real browser: it tells a failure, a stream from elsewhere and a silent gateway as they are."""

from __future__ import annotations

import json
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.model_server import ModelServer, script
from tests.support.person import Person, browser, visit
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

BUTTONS = "[...document.querySelectorAll('{where} button')].filter(b => b.checkVisibility()).map(b => b.textContent)"


@fixture
async def driver() -> AsyncIterator[Process]:
    async with browser() as process:
        yield process


@fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as started:
        yield started


@fixture
async def environment(model: ModelServer) -> AsyncIterator[dict[str, str]]:
    """Of gateways that show their chains' exceptions."""
    async with RedisServer() as server:
        yield {
            "REDIS_URL": server.url,
            "GATEWAY_CHAINS": "tests.support.page_chains",
            "GATEWAY_DEVELOPMENT": "yes",
            **model.environment(),
        }


@fixture
async def url(environment: dict[str, str]) -> AsyncIterator[str]:
    async with GatewayProcess("all", environment) as gateway:
        yield gateway.url


@pytest_asyncio.fixture(loop_scope="module")
async def person(driver: Process, url: str) -> AsyncIterator[Person]:
    async with visit(driver, url) as somebody:
        yield somebody


async def chooses(person: Person, chain: str) -> None:
    await person.does("until", f"document.querySelector('#chain option[value={chain}]') !== null")
    await person.does("choose", "Chain", chain)


async def elsewhere(person: Person, chain: str, **more: Any) -> str:
    """The id of a stream that was started without the page."""
    async with httpx.AsyncClient(base_url=person.url) as client:
        answer = await client.post("/stream", json={"user": "q", "chain": chain, **more})
    assert answer.status_code == 202
    return str(answer.json()["id"])


async def test_a_failure_is_told_with_what_its_author_is_told_and_may_be_asked_again(person: Person) -> None:
    await chooses(person, "unset")
    await person.does("ask", "Which way?")
    await person.sees("state", "Failed")
    for again in ("", "reload"):
        if again:
            await person.does(again)
        await person.sees("cause", "Sorry, this answer did not come to its end. The chain failed.")
        await person.sees("detail", "MAPS_KEY is not set <b>here</b>", part=True)  # as text
        assert await person.does("count", ".note b") == 0
        scrolls = "(n => n.tabIndex === 0 && n.scrollHeight > n.clientHeight && n.clientHeight < 300)"
        assert await person.does("run", f"{scrolls}(document.querySelector('.note pre'))")
        await person.does("until", f"{BUTTONS.format(where='.note')}.join() === 'Ask again'")
    await person.does("press", "How it arrived")
    await person.sees("trail", "It ended with an error (chain_error) after ", part=True)
    assert await person.does("axe") == []
    former = await person.stream_id()
    await person.does("press", "Ask again")
    await person.does("until", f"!location.hash.includes({json.dumps(former)})")
    await person.sees("asked", "Which way?")
    await person.sees("state", "Failed")


@pytest.mark.parametrize("ended", ["failed", "stopped"])
async def test_how_it_arrived_claims_nothing_of_an_answer_without_its_end(
    model: ModelServer, person: Person, ended: str
) -> None:
    if ended == "failed":
        await chooses(person, "unset")
        await person.does("ask", "Which way?")
        await person.sees("state", "Failed")
        told = "It ended with an error (chain_error) after 2 events."
    else:
        await person.does("ask", script(["said ", "never"], gate="told", gate_at=1))
        await person.sees("answer", "said")
        await person.does("press", "Stop")
        await person.sees("state", "Stopped")
        told = "It was stopped after "
    await person.does("press", "How it arrived")
    await person.sees("trail", told, part=True)
    trail = await person.does("read", "trail")
    assert ("missing" in trail, "is the same" in trail) == (False, False), trail
