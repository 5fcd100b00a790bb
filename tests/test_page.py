"""The first page in a real browser: a person asks, the answer grows, a cut connection costs nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gateway import protocol, sse
from gateway.protocol import Event
from tests.support.model_server import ModelServer, script
from tests.support.processes import REPOSITORY, GatewayProcess
from tests.support.redis_server import RedisServer

fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

DRIVER = Path(__file__).parent / "node" / "page.mjs"
PAGE = REPOSITORY / "web" / "index.html"
LEAVE_SECONDS = 20


class Person:
    """A newcomer at the page. `may_complain` holds a part of the browser's complaints that a test expects."""

    def __init__(self, driver: Process, url: str) -> None:
        self._driver = driver
        self.url = url
        self.may_complain = ""

    async def does(self, verb: str, *arguments: Any) -> Any:
        """One command of `page.mjs`, and what it answers. Raises AssertionError with its complaint."""
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(json.dumps([verb, *arguments]).encode() + b"\n")
        line = await self._driver.stdout.readline()
        assert line, f"the browser's driver ended at {verb}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    async def sees(self, where: str, text: str, *, part: bool = False) -> None:
        """Wait until that element shows exactly this text, or has it as a part."""
        await self.does("see", where, text, part)

    async def stream_id(self) -> str:
        """The stream that the page's address names."""
        return str(await self.does("address")).partition("#")[2]


@asynccontextmanager
async def visit(driver: Process, url: str) -> AsyncIterator[Person]:
    """Somebody who was never at this page before, and whose console is clean at the end."""
    person = Person(driver, url)
    await person.does("open", url)
    yield person
    complaints = await person.does("complaints")
    assert [text for text in complaints if not person.may_complain or person.may_complain not in text] == []


@fixture
async def driver() -> AsyncIterator[Process]:
    """page.mjs and its Chromium."""
    node, chromium = shutil.which("node"), shutil.which("chromium") or shutil.which("google-chrome")
    assert node, "the page's test needs Node.js"
    assert chromium, "the page's test needs chromium; `make setup` installs one"
    process = await asyncio.create_subprocess_exec(node, DRIVER, chromium, stdin=PIPE, stdout=PIPE)
    yield process
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(LEAVE_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as started:
        yield started


@fixture
async def environment(model: ModelServer) -> AsyncIterator[dict[str, str]]:
    """Of gateways with a store of their own and the scripted model."""
    async with RedisServer() as server:
        yield {"REDIS_URL": server.url, **model.environment()}


@fixture
async def url(environment: dict[str, str]) -> AsyncIterator[str]:
    async with GatewayProcess("all", environment) as gateway:
        yield gateway.url


@pytest_asyncio.fixture(loop_scope="module")
async def person(driver: Process, url: str) -> AsyncIterator[Person]:
    async with visit(driver, url) as somebody:
        yield somebody


@pytest_asyncio.fixture(loop_scope="module")
async def redis(environment: dict[str, str]) -> AsyncIterator[Redis]:
    """A client of the tests' own, to look behind."""
    client = Redis.from_url(environment["REDIS_URL"])
    yield client
    await client.aclose()


async def until_ended(person: Person) -> dict[str, Any]:
    """The status document of the page's stream, once it has ended, seen without the page."""
    where = f"/stream/{await person.stream_id()}"
    async with httpx.AsyncClient(base_url=person.url) as client, asyncio.timeout(20):
        await client.get(where, headers={"accept": "text/event-stream"})
        document: dict[str, Any] = (await client.get(where, headers={"accept": "application/json"})).json()
        assert document["status"] in ("done", "failed", "cancelled")
        return document


async def test_a_cut_in_the_middle_costs_nothing_and_a_reload_keeps_the_answer(
    model: ModelServer, person: Person
) -> None:
    chunks = ["What ", "holds ", "<b>fast</b>\n", "is ", "not lost: ", "é 🙂."]
    await person.sees("model", "Model configured")
    await person.does("ask", script(chunks, gate="middle", gate_at=2))
    await person.sees("answer", "What holds ")
    await person.sees("state", "Answering")

    await person.does("cut")
    await person.sees("state", "Connection cut")
    model.open_gate("middle")
    document = await until_ended(person)
    assert document["text"] == "".join(chunks)
    assert await person.does("read", "answer") == "What holds "

    await person.does("reconnect")
    await person.sees("answer", "".join(chunks))
    await person.sees("state", "Done")
    await person.sees("trail", "10 events, none twice · resumed from event ", part=True)
    await person.sees("trail", "7 tokens in, 6 out", part=True)
    await person.sees("trail", "same text as the gateway's record", part=True)

    await person.does("reload")
    await person.sees("answer", "".join(chunks))
    await person.sees("trail", "same text as the gateway's record", part=True)
    assert "resumed" not in await person.does("read", "trail")


async def test_a_connection_that_the_server_ends_comes_back_by_itself(
    model: ModelServer, driver: Process, environment: dict[str, str]
) -> None:
    short = environment | {"GATEWAY_STREAM_MAX_AGE_SECONDS": "1"}
    async with GatewayProcess("all", short) as gateway, visit(driver, gateway.url) as person:
        await person.does("ask", script(["one ", "two"], gate="rotated", gate_at=1))
        await person.sees("answer", "one ")
        await person.sees("trail", "resumed from event ", part=True)
        model.open_gate("rotated")
        await person.sees("answer", "one two")
        await person.sees("trail", "6 events, none twice", part=True)
        await person.sees("trail", "same text as the gateway's record", part=True)


async def test_a_model_that_fails_is_told_kindly_and_the_question_is_not_lost(person: Person) -> None:
    question = script([], status=400)
    await person.does("ask", question)
    await person.sees("note", "Sorry, this answer did not come to its end. The model", part=True)
    await person.sees("state", "Failed")
    assert await person.does("question") == question


async def test_stop_stops_the_model_and_keeps_what_was_said(model: ModelServer, person: Person) -> None:
    cut_before = model.cut_answers
    await person.does("ask", script(["said ", "never"], gate="never", gate_at=1))
    await person.sees("answer", "said ")
    await person.does("stop")
    await person.sees("state", "Stopped")
    await person.sees("answer", "said ")
    await model.until(cut=cut_before + 1)


async def cut_off_from_an_ended_answer(model: ModelServer, person: Person, gate: str) -> str:
    """The key of the log of a stream that has ended, of which the cut page shows `old ` only."""
    await person.does("ask", script(["old ", "text"], gate=gate, gate_at=1))
    await person.sees("answer", "old ")
    await person.does("cut")
    model.open_gate(gate)
    await until_ended(person)
    stream_id = await person.stream_id()
    return f"{{{stream_id[:2]}}}:log:{stream_id}"


async def test_fault_08_a_lost_log_and_a_void_attempt_leave_no_wrong_word(
    model: ModelServer, person: Person, redis: Redis
) -> None:
    key = await cut_off_from_an_ended_answer(model, person, "before the loss")
    await redis.set(key, rewritten(await person.stream_id()), keepttl=True)
    await person.does("reconnect")
    await person.sees("answer", "right")
    await person.sees("state", "Done")
    await person.sees("trail", "the store had lost some, all was sent again", part=True)
    await person.sees("trail", "same text as the gateway's record", part=True)


async def test_fault_30_an_answer_past_its_retention_is_told_and_what_was_shown_stays(
    model: ModelServer, person: Person, redis: Redis
) -> None:
    person.may_complain = "410"  # the browser's own line for each refused request
    await redis.delete(await cut_off_from_an_ended_answer(model, person, "before the end of its time"))
    await person.does("reconnect")
    await person.sees("state", "Not found")
    await person.sees("note", "The stream is past its retention.")
    await person.sees("answer", "old ")


def rewritten(stream_id: str) -> bytes:
    """A log as another history would have left it: other ids, and a second attempt that differed."""
    log = sse.encode(protocol.start(stream_id, "chat", ["chat"], "2026-01-01T00:00:00.000Z"), 0, "beef")
    began = f"{len(log)}-beef"
    later: list[Event] = [
        protocol.stage("chat", run=1, index=0, count=1),
        protocol.text("wrong ", deployment="scripted", stage="chat"),
        protocol.reset(attempt=2, stage_name="chat", discard_after=began, reason="attempt_differs"),
        protocol.text("right", deployment="scripted", stage="chat"),
        protocol.stage("chat", run=1, index=0, count=1, finished=True),
        protocol.done(finish_reason="stop", usage={}, attempts=2, duration_ms=1),
    ]
    for event in later:
        log += sse.encode(event, len(log), "beef")
    return log


async def test_the_page_asks_nobody_else_and_inserts_no_markup() -> None:
    page = PAGE.read_text()
    assert "https://" not in page
    assert page.count("http://") == page.count("http://www.w3.org/2000/svg")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in page
