"""A gateway whose chains are taken anew: what it serves, and what becomes of the streams that run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.protocol import sse
from gateway.settings import Settings
from gateway.streams.service import Gateway
from tests.support.jobs import Jobs, body, eventually
from tests.support.processes import GatewayProcess
from workers.delivery.runner import AGAIN, DONE


async def test_a_gateway_that_learns_other_chains_creates_their_streams(redis_url: str) -> None:
    settings = Settings(redis_url=redis_url)
    gateway = Gateway(settings, {"old": ["old"]})
    try:
        assert gateway.parts.creation._chains == {"old": ["old"]}
        with pytest.raises(ValueError, match="no JSON Schema"):
            gateway.learn({"new": ["new"]}, {"new": {"type": 1}}, {})
        assert gateway.chains == {"old": ["old"]}
        gateway.learn({"new": ["a", "b"]}, {"new": {"type": "string"}}, {})
        assert gateway.chains == {"new": ["a", "b"]}
        assert gateway.inputs.schema("new") == {"type": "string"}
        assert gateway.parts.creation._chains == {"old": ["old"], "new": ["a", "b"]}
        assert gateway.parts.creation._inputs is gateway.inputs
    finally:
        await gateway.close()


async def test_what_a_replaced_runner_hands_over_loses_no_attempt(redis_url: str) -> None:
    """With one attempt allowed in all."""
    begun, gate = asyncio.Event(), asyncio.Event()

    async def waits(given: Any) -> Any:
        yield "one "
        begun.set()
        await gate.wait()
        yield "two"

    async with Jobs(redis_url, waits, max_attempts=1, max_failures=1) as jobs:
        stream_id = await jobs.stream()
        for handed_over in range(3):
            running = asyncio.create_task(jobs.runner.run(body(stream_id)))
            await begun.wait()
            begun.clear()
            jobs.runner.replaced = True
            running.cancel()
            assert await running == AGAIN
            record = await jobs.record(stream_id)
            assert (record.attempt, record.handovers, record.failures) == (
                handed_over + 1,
                handed_over + 1,
                0,
            )
        gate.set()
        assert await jobs.runner.run(body(stream_id)) == DONE
        fold = await jobs.fold(stream_id)
        assert (fold.text, fold.error) == ("one two", None)
        assert "reset" not in await jobs.kinds(stream_id)


SLOW = """
import asyncio
from pathlib import Path

from holdfast_gateway import chain

from words import WORDS

GATE = Path(__file__).with_name("gate")


@chain("say")
def say(settings):
    return lambda given: WORDS


@chain("opens")
async def opens(settings):
    yield lambda given: "open"
    GATE.with_name("closed").touch()


@chain("slow")
def slow(settings):
    return waiting("one ")


@chain("changing")
def changing(settings):
    return waiting(WORDS + " ")


def waiting(first):
    async def waits(inputs):
        async for given in inputs:
            yield first
            while not GATE.exists():
                await asyncio.sleep(0.01)
            yield "two"

    return waits
"""


async def events(http: httpx.AsyncClient, chain: str) -> list[sse.Message]:
    answer = await http.post(
        "/stream", json={"chain": chain, "input": "q"}, headers={"accept": "text/event-stream"}
    )
    assert answer.status_code == 200, answer.text
    return sse.Decoder().feed(answer.content)


async def texts(http: httpx.AsyncClient, chain: str) -> str:
    found = [message.event() for message in await events(http, chain)]
    assert found[-1].type == "done"
    return "".join(event.data["delta_content"] for event in found if event.type == "")


@pytest.mark.slow
async def test_an_edit_while_the_gateway_runs_is_served_and_running_streams_go_on(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SLOW)
    (tmp_path / "words.py").write_text('WORDS = "old words"\n')
    environment = {
        "PYTHONPATH": str(tmp_path),
        "GATEWAY_CHAINS": "mine",
        "GATEWAY_DEVELOPMENT": "",
        "OPENAI_API_KEY": "none",  # so that no model is brought along
    }
    async with (
        GatewayProcess("all", environment) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=60) as http,
    ):
        assert await texts(http, "say") == "old words"
        slow, changing = [await _shown(http, *row) for row in (("slow", "one "), ("changing", "old words "))]
        (tmp_path / "mine.py").write_text(SLOW.replace('chain("say")', 'chain("tell")'))
        (tmp_path / "words.py").write_text('WORDS = "new words"\n')
        await _logged(gateway, "the chains are reloaded, as ", 1)
        names = {one["name"] for one in (await http.get("/chains")).json()["chains"]}
        assert "tell" in names
        assert "say" not in names
        assert await texts(http, "tell") == "new words"
        told = await _until(slow.status, lambda told: told["attempt"] == 2)
        assert (told["status"], told["text"]) == ("running", "one ")
        await _until(changing.status, lambda told: told["text"] == "new words ")
        await _until(lambda: _exists(tmp_path / "closed"), bool)

        (tmp_path / "words.py").write_text('WORDS = "broken words\n')
        await _logged(gateway, "the chains are not reloaded: ", 1)
        assert f"unterminated string literal (detected at line 1) ({tmp_path}/words.py:1)" in gateway.log()
        assert await texts(http, "tell") == "new words"
        (tmp_path / "gate").touch()
        went_on = ["start", "stage", "message", "message", "stage", "done"]
        assert [message.type for message in await slow.reader] == went_on
        changed = ["start", "stage", "message", "reset", *went_on[2:]]
        assert [message.type for message in await changing.reader] == changed
        for stream, text in ((slow, "one two"), (changing, "new words two")):
            told = await stream.status()
            assert (told["status"], told["text"], told["attempt"]) == ("done", text, 2)

        (tmp_path / "words.py").write_text('WORDS = "mended words"\n')
        await _logged(gateway, "the chains are reloaded, as ", 2)
        assert await texts(http, "tell") == "mended words"
        assert await texts(http, "slow") == "one two"


@dataclass
class Running:
    """A stream, and somebody who reads it to its end."""

    http: httpx.AsyncClient
    where: str
    reader: asyncio.Task[list[sse.Message]]

    async def status(self) -> Any:
        return (await self.http.get(self.where, headers={"accept": "application/json"})).json()


async def _shown(http: httpx.AsyncClient, chain: str, text: str) -> Running:
    """A stream of this chain, when it has said this."""
    where = (await http.post("/stream", json={"chain": chain, "input": "q"})).json()["stream"]
    running = Running(http, where, asyncio.create_task(_followed(http, where)))
    await _until(running.status, lambda told: told["text"] == text)
    return running


async def _exists(file: Path) -> bool:
    return await asyncio.to_thread(file.exists)


async def _followed(http: httpx.AsyncClient, where: str) -> list[sse.Message]:
    return sse.Decoder().feed((await http.get(where, headers={"accept": "text/event-stream"})).content)


async def _until(ask: Any, right: Any) -> Any:
    answers: list[Any] = []

    async def is_right() -> bool:
        answers[:] = [await ask()]
        return bool(right(answers[0]))

    await eventually(is_right)
    return answers[0]


async def _logged(gateway: GatewayProcess, line: str, count: int) -> None:
    async def is_logged() -> bool:
        return gateway.log().count(line) >= count

    await eventually(is_logged)
