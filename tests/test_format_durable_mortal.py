"""npm `@durable-streams/client` on hosts whose workers are killed, and whose connections end after a time."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from tests.hosts import JSON, LIMIT_SECONDS, TEXTS
from tests.mortals import Mortal
from tests.support.durable import Said, at, deltas, errors, folded, messages, types
from tests.support.model_server import script
from tests.support.programs import talking

pytest_plugins = ("tests.hosts", "tests.mortals", "tests.support.durable")
pytestmark = pytest.mark.asyncio(loop_scope="session")

KEEPS_SSE = {"sseResilience": {"minConnectionDuration": 0}}


async def start(url: str, chunks: list[str], **options: Any) -> str:
    """Start a stream on a host that has no workers, and return its location."""
    async with httpx.AsyncClient(base_url=url, timeout=LIMIT_SECONDS) as http:
        answer = await http.post("/stream", json={"user": script(chunks, **options)})
        assert answer.status_code == 202, answer.text
        where: str = answer.headers["location"]
        return where


async def page(url: str, where: str) -> Said:
    """Return all of an ended stream, read in one page.

    Check that the text of its status document is equal.
    """
    async with httpx.AsyncClient(base_url=url, timeout=LIMIT_SECONDS) as http:
        answer = await http.get(at(where))
        assert answer.headers["stream-closed"] == "true"
        said: Said = answer.json()
        document = (await http.get(where, headers=JSON)).json()
        assert folded([{"batch": said}]).text == document["text"]
        return said


async def test_a_worker_is_killed_with_equal_text_and_with_other(mortal: Mortal) -> None:
    """Equal text continues with no visible break; other text causes a reset.

    Each stream is read as events and by polls.
    """
    gate, other = f"durable-kill-{mortal.name}", ["quite ", "other ", "text"]
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(mortal.worker())
        equal = await start(mortal.url, TEXTS, gate=gate, gate_at=4)
        changed = await start(mortal.url, TEXTS, gate=gate, gate_at=4, again=other)
        talks = [
            await stack.enter_async_context(talking("durable.mjs", mortal.url + at(where), live))
            for where in (equal, changed)
            for live in ("sse", "long-poll")
        ]
        for talk in talks:
            await talk.until(lambda said: len(deltas(said)) == 4)
        await first.kill()
        mortal.model.open_gate(gate)
        await stack.enter_async_context(mortal.worker())
        seamless, reset = [[await talk.end() for talk in pair] for pair in (talks[:2], talks[2:])]
    for said in seamless:
        assert "reset" not in types(said)
        assert deltas(said) == TEXTS
        assert messages(said) == await page(mortal.url, equal)
        assert not errors(said)
    for said in reset:
        assert types(said).count("reset") == 1
        assert folded(said).text == "".join(other)
        assert messages(said) == await page(mortal.url, changed)
        assert not errors(said)


async def test_rotation_is_survived(mortal: Mortal) -> None:
    """With its own defaults, the client gives up after three connections that lasted less than a second.

    It takes them for a fault of a proxy.
    """
    gate = f"durable-age-{mortal.name}"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(mortal.worker())
        where = await start(mortal.rotating_url, TEXTS, gate=gate, gate_at=4)
        url = mortal.rotating_url + at(where)
        kinds: list[tuple[str, dict[str, Any]]] = [("sse", KEEPS_SSE), ("sse", {}), ("long-poll", {})]
        talks = [
            await stack.enter_async_context(talking("durable.mjs", url, live, "-1", json.dumps(options)))
            for live, options in kinds
        ]
        for talk in talks:  # Each connection and each unsuccessful poll gives an empty batch.
            await talk.until(lambda said: sum(line.get("batch") == [] for line in said) >= 3)
        await talks[1].until(lambda said: any("warning" in line for line in said))
        mortal.model.open_gate(gate)
        kept, gave_up, polled = [await talk.end() for talk in talks]
    for said in (kept, gave_up, polled):
        assert deltas(said) == TEXTS
        assert messages(said) == await page(mortal.url, where)
        assert not errors(said)
    assert [sum("begun" in line for line in said) for said in (kept, polled)] == [1, 1]
    assert sum("begun" in line for line in gave_up) == sum("warning" in line for line in gave_up) + 1 > 1
