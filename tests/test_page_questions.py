"""The page in a real browser: a person answers what a graph has stopped to ask, and the turn goes on."""

from __future__ import annotations

from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.page_chains import HOSTILE
from tests.support.person import Person, browser, visit
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SEND = "May “send” be called?"
WAITING = "Waiting for your answer"
DECISIONS = "[...document.querySelectorAll('.ways button')].map(one => one.textContent)"
FORMS = ".asking form"


@fixture
async def driver() -> AsyncIterator[Process]:
    async with browser() as process:
        yield process


@fixture
async def url() -> AsyncIterator[str]:
    async with RedisServer() as server:
        environment = {
            "REDIS_URL": server.url,
            "GATEWAY_CHAINS": "tests.support.page_chains",
            "GATEWAY_MODEL": "none",
            "OPENAI_BASE_URL": "http://127.0.0.1:9",
        }
        async with GatewayProcess("all", environment) as gateway:
            yield gateway.url


@pytest_asyncio.fixture(loop_scope="module")
async def person(driver: Process, url: str) -> AsyncIterator[Person]:
    async with visit(driver, url) as somebody:
        yield somebody


async def asks(person: Person, chain: str) -> str:
    """Ask this chain, until it waits; the id of the stream that waits."""
    await person.does("until", f"document.querySelector('#chain option[value={chain}]') !== null")
    await person.does("run", f"document.querySelector('#chain').value = '{chain}'")
    await person.does("ask", "q")
    await person.sees("state", WAITING)
    await person.does("until", f"document.querySelector('{FORMS}') !== null")
    return await person.stream_id()


async def status(person: Person, stream_id: str) -> Any:
    async with httpx.AsyncClient(base_url=person.url) as client:
        return (await client.get(f"/stream/{stream_id}", headers={"accept": "application/json"})).json()


async def until_answered(person: Person, answer: str) -> None:
    """The turn goes on to an answer with this in it, and its question is not asked again."""
    await person.sees("state", "Done")
    await person.sees("answer", answer, part=True)
    await person.sees("trail", "the text is the same", part=True)
    assert await person.does("count", FORMS) == 0


async def first_part(person: Person, name: str) -> str:
    """What stands in this part of the turn's first stream."""
    return str(await person.does("run", f"document.querySelector('.{name}').textContent.trim()"))


async def test_an_action_is_approved_and_the_question_is_never_asked_again(person: Person) -> None:
    before = await asks(person, "letter")
    await person.sees("answer", "I will write.")
    assert await person.does("run", DECISIONS) == ["Approve", "Edit", "Reject"]
    asked = await first_part(person, "asking")
    assert ("A letter." in asked, '"to": "Ann"' in asked) == (True, True)
    await person.does("press", "Approve")
    await until_answered(person, "sent to Ann")
    assert await first_part(person, "asking") == f"You have answered.{SEND}Approve"
    assert (await status(person, before))["resumed_by"] == await person.stream_id()

    await person.does("reload")
    await until_answered(person, "sent to Ann")
    assert await person.does("count", ".turn") == 1
    await person.does("until", "document.querySelectorAll('.readers').length === 2")
    await person.does("until", f"document.querySelector('.asking').textContent === 'Answered.{SEND}'")
    assert await first_part(person, "answer") == "I will write."
    await person.does("open", f"{person.url}#{before}")  # the address of before
    await until_answered(person, "sent to Ann")
    assert await person.stream_id() != before


async def test_an_action_is_edited_as_json(person: Person) -> None:
    await asks(person, "letter")
    await person.does("press", "Edit")
    assert await person.does("run", "document.activeElement.value") == '{\n  "to": "Ann"\n}'
    for wrong, why in (('{"to"', "this is not valid JSON."), ("[]", "this is not a JSON object")):
        await person.does("fill", "Arguments, as JSON", wrong)
        await person.does("press", "Send answer")
        await person.sees("problem", f"Arguments, as JSON: {why}", part=True)
        assert await person.does("run", "document.activeElement.getAttribute('aria-invalid')") == "true"
    await person.does("fill", "Arguments, as JSON", '{"to": "Bob"}')
    await person.does("press", "Send answer")
    await until_answered(person, "sent to Bob")


async def test_an_action_is_rejected_by_keyboard_and_why(person: Person) -> None:
    await asks(person, "letter")
    await person.does("run", "document.querySelector('.asking button').focus()")
    await person.does("keys", "Tab", "Tab", "Enter")
    assert await person.does("focused") == ""  # the field for the reason
    await person.does("keys", *"too", "Space", *"early", "Enter")
    await person.sees("answer", "with reason: too early", part=True)
    await person.sees("state", "Done")
    assert await first_part(person, "asking") == f"You have answered.{SEND}Reject: too early"
    focus = "document.activeElement.className"
    assert await person.does("run", focus) == "asking"  # not lost with the form
    await person.does("back")  # to before the question, not to the stream that has asked
    await person.does("until", "document.querySelectorAll('.turn').length === 0")


async def test_several_actions_are_decided_together_in_either_mode_on_a_phone(
    driver: Process, url: str
) -> None:
    async with visit(driver, url, 375) as person:
        for chain in ("letters", "letters-each"):
            before = await asks(person, chain)
            assert len((await status(person, before))["interrupts"]) == (1 if chain == "letters" else 2)
            await person.does("decide", f"{SEND} (2 of 2)", "Reject")
            await person.does("press", "Send 2 answers")
            await person.sees("problem", f"Not answered yet: {SEND} (1 of 2)")
            assert await person.does("focused") == "Approve"
            assert await person.does("run", "document.documentElement.scrollWidth") <= 375
            await person.does("keys", "Enter")
            await person.does("press", "Send 2 answers")
            await person.sees("state", "Done")
            said = await person.does("read", "answer")
            assert ("sent to Ann" in said, "sent to Bob" in said) == (True, False)


async def test_a_raw_question_is_shown_as_text_and_outlives_a_reload(person: Person) -> None:
    before = await asks(person, "word")
    for again in ("", "reload", "tab"):
        if again:
            await person.does(again)
        await person.sees("state", WAITING)
        await person.does("until", f"document.querySelector('{FORMS} legend')?.textContent === {HOSTILE!r}")
        assert await person.does("count", ".asking img, .asking b") == 0
        assert await person.stream_id() == before
    await person.does("type", "Your answer", "")
    await person.sees("problem", "Your answer: this is to be filled in.")
    await person.does("type", "Your answer", "holdfast")
    await until_answered(person, "word=holdfast")


async def test_choices_and_a_schema_are_answered_in_one_request(person: Person) -> None:
    await asks(person, "order")
    await person.does("decide", "Which soup?", "pea")
    await person.does("fill", "How many", "0")
    await person.does("choose", "Size", "large")
    await person.does("press", "Send 2 answers")
    person.may_complain = "422"
    await person.sees("problem", "This answer was not taken: ", part=True)
    await person.does("fill", "How many", "3")
    await person.does("press", "Send 2 answers")
    await until_answered(person, "amount={'count': 3, 'size': 'large'} soup=pea")


async def test_who_is_late_is_told_and_follows_the_answer_that_won(person: Person) -> None:
    before = await asks(person, "word")
    [question] = (await status(person, before))["interrupts"]
    async with httpx.AsyncClient(base_url=person.url) as client:
        answer = {"responses": [{"interrupt_id": question["id"], "response": "kelp"}]}
        won = (await client.post(f"/stream/{before}/resume", json=answer)).json()["id"]
    await person.does("type", "Your answer", "holdfast")
    await until_answered(person, "word=kelp")
    assert "Somebody else has answered first." in await first_part(person, "asking")
    assert await person.stream_id() == won
    person.may_complain = "409"


async def test_a_question_that_was_taken_back_is_over(person: Person) -> None:
    before = await asks(person, "word")
    async with httpx.AsyncClient(base_url=person.url) as client:
        await client.delete(f"/stream/{before}")
    await person.does("type", "Your answer", "holdfast")
    await person.sees("asking", "This question can be answered no more.")
    await person.sees("state", "Stopped to ask")
    person.may_complain = "409"
    await person.does("reload")
    await person.sees("asking", f"This question can be answered no more.{HOSTILE}")


async def test_a_failed_step_is_tried_again_in_the_same_turn(person: Person) -> None:
    await person.does("until", "document.querySelector('#chain option[value=checked]') !== null")
    await person.does("run", "document.querySelector('#chain').value = 'checked'")
    await person.does("ask", "q")
    await person.sees("state", "Failed")
    failed = await person.stream_id()
    await person.does("press", "Retry the failed step")
    await until_answered(person, "checked a draft")
    again = await person.stream_id()
    assert (await status(person, again))["retries"] == failed
    assert not await person.does("run", "document.querySelector('.retry').checkVisibility()")
    await person.does("reload")
    await until_answered(person, "checked a draft")
    await person.does("until", "document.querySelectorAll('.readers').length === 2")
    assert await person.stream_id() == again


async def test_a_graph_that_stands_at_a_breakpoint_goes_on(person: Person) -> None:
    await asks(person, "stands")
    await person.sees("asking", "The chain has stopped before last.Go on")
    await person.does("press", "Go on")
    await until_answered(person, "over the edge")
