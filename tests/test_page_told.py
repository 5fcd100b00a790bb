"""The page in a real browser: a failure, a stream from elsewhere, a silent gateway told as they are."""

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

SHOWN = "filter(b => b.checkVisibility()).map(b => b.textContent)"
BUTTONS = f"[...document.querySelectorAll('{{where}} button')].{SHOWN}"


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
        answer = await client.post("/stream", json={"user": "q", "chain": chain} | more)
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


TITLES = "[...document.querySelectorAll('#history a')].map(a => [...a.children].map(n => n.textContent))"


async def test_streams_of_elsewhere_are_told_apart_and_opened_they_say_so(
    person: Person, model: ModelServer
) -> None:
    named = await elsewhere(person, "word", metadata={"question": "Which   word\nis it?"})
    plain = await elsewhere(person, "word")
    failed = await elsewhere(person, "unset")
    await person.does("reload")
    await person.does("until", f"{TITLES}[2]?.[0] === 'Which word is it?'")
    await person.does("until", f"{TITLES}[0]?.[1].startsWith('failed')")
    first, second, _ = await person.does("run", f"{TITLES}.slice(0, 3)")
    assert (first[0], second[0]) == (f"unset · {failed[:8]}", f"word · {plain[:8]}")
    assert ("asked elsewhere" in first[1], "asked elsewhere" in second[1]) == (True, True)
    deletes = "document.querySelector('#history li:nth-child(2) button').getAttribute('aria-label')"
    assert await person.does("run", deletes) == f"Delete “word · {plain[:8]}”"

    await person.does("click", "#history li:nth-child(2) a")
    await person.sees("elsewhere", f"Asked elsewhere {plain}")
    assert await person.does("run", BUTTONS.format(where=".question")) == []  # no question to copy or edit
    assert await person.does("axe") == []
    await person.does("click", "#history li:nth-child(3) a")
    await person.sees("asked", "Which   word\nis it?")
    assert named in await person.does("address")

    await person.does("click", "#history li:nth-child(1) a")
    await person.sees("elsewhere", f"Asked elsewhere {failed}")
    await person.does("until", f"{BUTTONS.format(where='.note')}.join() === 'Ask again'")
    await person.does("press", "Ask again")  # with the question that the gateway alone has
    await person.does("until", f"!location.hash.includes({json.dumps(failed)})")
    await person.sees("state", "Failed")
    async with httpx.AsyncClient(base_url=person.url) as client:
        where, document = f"/stream/{await person.stream_id()}", {"accept": "application/json"}
        again = (await client.get(where, headers=document)).json()
    assert again["retries"] == failed

    whole = await elsewhere(person, "chat", user=script(["all of it"]))
    await person.does("reload")
    await person.does("until", f"{TITLES}[0]?.[0] === 'chat · {whole[:8]}'")
    await person.does("click", "#history li:nth-child(1) a")
    await person.sees("state", "Done")
    await person.sees("elsewhere", f"Asked elsewhere {whole}")
    assert not await person.does("shown", "regenerate")  # there is no question to ask anew


CARDS = "[...document.querySelectorAll('#examples button')].map(b => [...b.children].map(n => n.textContent))"


async def test_the_cards_say_what_they_do_and_ask_the_script_for_what_it_says(
    driver: Process, url: str, model: ModelServer
) -> None:
    async with visit(driver, url) as person:
        await chooses(person, "chat")
        others = await person.does("run", CARDS)
        await chooses(person, "demo")
        scripted = await person.does("run", CARDS)
        assert [(title, says) for title, says, _ in others] == [(title, says) for title, says, _ in scripted]
        assert all(title.startswith("Ask, then ") for title, _, _ in scripted)
        labels = (
            "[...document.querySelectorAll('#losing button')].map(b => b.textContent.replace('Second', ''))"
        )
        bar = await person.does("run", labels)
        for (_, says, _), button in zip(
            scripted, ("Cut the connection", "Kill the worker", "Open a second device"), strict=True
        ):
            assert f"“{button}" in says
            assert any(button in one for one in bar)
        asks = [question for _, _, question in scripted]
        assert not set(asks) & {question for _, _, question in others}
        await person.does("click", "#examples li:nth-child(1) button")
        await person.sees("asked", asks[0])
        await person.sees("answer", "This answer is scripted.", part=True)
        await person.does("press", "Stop")
        await person.sees("state", "Stopped")


async def test_the_bar_explains_itself_until_something_was_tried(model: ModelServer, person: Person) -> None:
    bar = "document.querySelector('#losing .lost').textContent"
    why = await person.does("run", "import('./web/words.js').then(({ LOSING }) => LOSING.why)")
    assert why.startswith("Try one of these")
    await person.does("ask", script(["one ", "two"], gate="bar", gate_at=1))
    await person.sees("answer", "one")
    await person.does("until", f"{bar} === {json.dumps(why)}")
    await person.does("press", "Open a second device")
    await person.does("until", f"{bar}.includes('from its first word')")
    await person.does("press", "Close")
    await person.does("until", f"{bar} === ''")
    await person.does("press", "Cut the connection")
    await person.does("until", f"{bar}.startsWith('Back')")
    model.open_gate("bar")
    await person.sees("state", "Done")


async def test_the_second_device_draws_the_answer_as_the_first_does(
    model: ModelServer, person: Person
) -> None:
    said = [
        "# Head\n\nIt is **bold**.\n\n",
        "```py\nx = 1\n```\n\n",
        "| a | b |\n|-|-|\n| c | d |\n\n",
        "line\n\n" * 200,
    ]
    await person.does("ask", script([*said, "the end"], gate="second", gate_at=len(said)))
    await person.sees("answer", "line", part=True)
    await person.does("press", "Open a second device")
    drawn = "document.querySelector('{where} .answer').innerHTML"
    model.open_gate("second")
    await person.sees("state", "Done")
    await person.sees("second-state", "Done")
    same = f"{drawn.format(where='.said')} === {drawn.format(where='.second-said')}"
    await person.does("until", same)
    frame = "document.querySelector('.second-said')"
    for selector in ("strong", ".code", ".table"):
        assert await person.does("count", f".second-said {selector}") == 1
    assert await person.does("run", f"{frame}.clientHeight <= 400 && {frame}.scrollHeight > 2000")
    await person.does("until", f"{frame}.scrollHeight - {frame}.clientHeight - {frame}.scrollTop < 2")
    assert await person.does("run", f"{frame}.querySelector('.answer').getAttribute('aria-live')") is None
    await person.does("click", ".second-said .copy-code")
    await person.does("until", "navigator.clipboard.readText().then(t => t === 'x = 1')")
    assert await person.does("axe") == []


async def test_a_silent_gateway_is_told_and_a_clean_hand_over_is_no_death(
    driver: Process, environment: dict[str, str], model: ModelServer
) -> None:
    bar = "document.querySelector('#losing .lost').textContent"
    off = "document.querySelector('#losing .kill').getAttribute('aria-disabled')"
    silent = "The gateway does not answer. The page tries again."
    async with (
        RedisServer() as store,  # its own: another test's gateway would take the job
        GatewayProcess("all", environment | {"REDIS_URL": store.url}) as first,
        visit(driver, first.url) as person,
    ):
        person.may_complain = "net::ERR_"
        await chooses(person, "chat")
        await person.does("ask", script(["before ", "after"], gate="handed", gate_at=1))
        await person.sees("answer", "before")
        await person.does("until", f"{off} === 'false'")
        await first.stop()
        await person.does("until", f"{bar} === {json.dumps(silent)}")
        assert await person.does("run", off) == "true"
        assert await person.does("axe") == []
        port = {"PORT": first.url.rpartition(":")[2], "REDIS_URL": store.url}
        async with GatewayProcess("all", environment | port):
            await person.does("until", f"{bar}.startsWith('Back')")
            model.open_gate("handed")
            await person.sees("answer", "before after")
            await person.sees("state", "Done")
            await person.does("press", "How it arrived")
            await person.sees("trail", "2 attempts", part=True)
            trail = await person.does("read", "trail")
            assert ("another worker went on" in trail, "died" in trail) == (True, False), trail
