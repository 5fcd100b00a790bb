"""`run` with a store in a folder: a restart or a kill in the middle of an answer, two processes of one."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.client import Gateway, Stream
from tests.support import forked
from tests.support.model_server import ModelServer, script
from tests.support.person import browser, visit
from tests.support.processes import REPOSITORY, GatewayProcess, store_ended
from tests.support.programs import node
from tests.support.redis_server import free_port

pytestmark = pytest.mark.slow
BOUND_SECONDS = 100
PATIENCE_SECONDS = 600.0
JS_PATIENCE = json.dumps({"patience": 50 * PATIENCE_SECONDS})  # of a clock that is fifty times as fast
WORDS = ["It ", "holds ", "fast."]
OTHERS = ["But ", "now ", "not."]


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as started:
        yield started


@pytest.fixture
async def environment(model: ModelServer, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """Of processes that share a folder."""
    folder = tmp_path / ".holdfast"
    yield {"GATEWAY_STORE_DIR": str(folder), "GATEWAY_LEASE_SECONDS": "1", **model.environment()}
    await store_ended(folder)


async def until_heard(stream: Stream, heard: asyncio.Event) -> list[tuple[str, str]]:
    """The stream's ids and types to its end; `heard` is set at its first text."""
    events = []
    async for event in stream:
        events.append((event.id, event.type))
        if event.text:
            heard.set()
    return events


async def asked(http: httpx.AsyncClient, text: str, thread: str = "trip") -> str:
    answer = await http.post("/stream", json={"user": text, "thread": thread})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def page_follows(url: str, stream_id: str) -> list[Any]:
    """What the page's own client tells, in Node."""
    return await node("ask.mjs", url, json.dumps({"follow": [stream_id, ""]}), JS_PATIENCE)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("number", "again", "said"),
    [(signal.SIGTERM, WORDS, WORDS), (signal.SIGKILL, OTHERS, OTHERS)],
    ids=["restarted", "killed, and the model says something else"],
)
async def test_a_restart_in_the_middle_of_an_answer_costs_its_readers_nothing(
    model: ModelServer, environment: dict[str, str], number: int, again: list[str], said: list[str]
) -> None:
    port = free_port()
    environment |= {"PORT": str(port)}
    question, heard = script(WORDS, gate="middle", gate_at=1, again=again), asyncio.Event()
    url = f"http://127.0.0.1:{port}"
    async with (
        asyncio.timeout(BOUND_SECONDS),
        asyncio.TaskGroup() as following,
        Gateway(url, patience=PATIENCE_SECONDS) as gateway,
    ):
        async with (
            GatewayProcess("all", environment) as first,
            httpx.AsyncClient(base_url=url, timeout=BOUND_SECONDS) as http,
        ):
            earlier = gateway.stream(user="What was before?")
            before = await earlier.result()
            stream_id = await asked(http, question)
            token = (await http.post(f"/stream/{stream_id}/token")).json()["stream"]
            stream = gateway.follow(stream_id)
            reader = following.create_task(until_heard(stream, heard))
            page = following.create_task(page_follows(url, stream_id))
            await heard.wait()
            first.signal(number)
            await first.ended()
        model.open_gate("middle")
        async with (
            GatewayProcess("all", environment) as second,
            httpx.AsyncClient(base_url=second.url, timeout=BOUND_SECONDS) as http,
        ):
            assert second.url == url
            events, lines = await reader, await page
            read = (await http.get(token, headers={"accept": "text/event-stream"})).text
            told = (await http.get(f"/stream/{earlier.id}", headers={"accept": "application/json"})).json()
            history = (await http.get("/threads")).json()
    assert stream.text == lines[-1]["result"]["text"] == "".join(said)
    assert [event[0] for event in events] == [line["event"]["id"] for line in lines[:-1]]
    assert len(set(events)) == len(events)
    kinds = [kind for _, kind in events]
    assert kinds.count("reset") == int(again is OTHERS)
    assert kinds[-1] == "done"
    assert all(f"id: {event_id}\n" in read for event_id, _ in events)
    assert (told["status"], told["text"]) == ("done", before.text)
    assert "trip" in json.dumps(history)


LOOKED_AT = "document.dispatchEvent(new Event('visibilitychange'))"  # and the page is not hidden


@pytest.mark.timeout(300)
@pytest.mark.parametrize("has_given_up", [False, True])
async def test_the_page_goes_on_after_a_restart_and_shows_what_was_before(
    model: ModelServer, environment: dict[str, str], has_given_up: bool
) -> None:
    """By itself; and where the page has given up, as soon as somebody looks at it again."""
    environment |= {"PORT": str(free_port())}
    question = script(WORDS, gate="page", gate_at=1, again=OTHERS)
    async with asyncio.timeout(BOUND_SECONDS), browser() as driver, AsyncExitStack() as visits:
        async with GatewayProcess("all", environment) as first:
            person = await visits.enter_async_context(visit(driver, first.url))
            person.may_complain = "net::ERR_"
            if has_given_up:
                await person.does("clock")
                await person.does("reload")
            await person.does("ask", question)
            if has_given_up:
                await person.does("later", 1000)
            await person.sees("answer", WORDS[0].strip())
            first.signal(signal.SIGTERM)
            await first.ended()
        if has_given_up:
            for _ in range(12):
                await person.does("later", 15_000)
            await person.sees("state", "Not followed")
        model.open_gate("page")
        async with GatewayProcess("all", environment) as second:
            assert second.url == first.url
            if has_given_up:
                await person.sees("state", "Not followed")
                await person.does("run", LOOKED_AT)
                await person.does("later", 1000)
            await person.sees("answer", "".join(OTHERS))
            document = await person.until_ended()
            await person.does("reload")
            await person.sees("asked", question)
            await person.sees("answer", "".join(OTHERS))
            async with Gateway(second.url) as gateway:
                events = [event async for event in gateway.follow(document["id"])]
    assert (document["status"], document["text"]) == ("done", "".join(OTHERS))
    assert [event.type for event in events].count("reset") == 1


@pytest.mark.timeout(300)
async def test_ctrl_c_in_one_of_two_processes_takes_the_store_from_nobody(
    model: ModelServer, environment: dict[str, str]
) -> None:
    question = script(WORDS, gate="middle", gate_at=1)
    folder = Path(environment["GATEWAY_STORE_DIR"])
    async with asyncio.timeout(BOUND_SECONDS), GatewayProcess("all", environment) as first:
        [line] = [line for line in first.lines if line.startswith("Store: ")]
        assert line.endswith(f"; its data is in {folder}")
        async with (
            GatewayProcess("all", environment) as second,
            Gateway(second.url) as gateway,
            httpx.AsyncClient(base_url=first.url, timeout=BOUND_SECONDS) as http,
        ):
            assert f"{line}; another process has started it, and both take the same jobs" in second.lines
            stream_id, heard = await asked(http, question), asyncio.Event()
            stream = gateway.follow(stream_id)
            reader = asyncio.create_task(until_heard(stream, heard))
            await heard.wait()
            first.signal(signal.SIGINT)
            assert await first.ended() == 0
            model.open_gate("middle")
            events = await reader
            assert (stream.text, events[-1][1]) == ("".join(WORDS), "done")
            assert "reset" not in [kind for _, kind in events]
    await store_ended(folder)
    assert stream_id in await listed(environment)  # nothing runs, and what there was can be looked at


async def listed(environment: dict[str, str]) -> str:
    """What `ls` prints."""
    with tempfile.TemporaryFile() as complaints:
        looking = await forked.start(
            *("gateway", "ls"), environment=environment, cwd=REPOSITORY, stderr=complaints
        )
        assert looking.stdout is not None
        said = (await looking.stdout.read()).decode()
        assert await looking.wait() == 0, complaints.read()
        if isinstance(looking, forked.Forked):
            looking.close()
    return said


@pytest.mark.timeout(300)
async def test_web_and_worker_share_a_folder_that_they_are_given(environment: dict[str, str]) -> None:
    async with (
        asyncio.timeout(BOUND_SECONDS),
        GatewayProcess("web", environment) as web,
        GatewayProcess("worker", environment),
        Gateway(web.url) as gateway,
    ):
        result = await gateway.stream(user=script(WORDS)).result()
        assert result.text == "".join(WORDS)
