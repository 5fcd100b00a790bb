"""A2A and MCP on hosts whose workers are killed, and whose connections end at their maximum age."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

import pytest
from mcp import Client

from tests.a2a_clients import Assembled, asked, client_of, text, told
from tests.hosts import TEXTS
from tests.mortals import Mortal
from tests.support.model_server import script
from tests.support.programs import talking
from tests.test_format_mcp import VERSIONS, text_of

pytest_plugins = ("tests.hosts", "tests.mortals")
pytestmark = pytest.mark.asyncio(loop_scope="session")
MODES = pytest.mark.parametrize("mode", VERSIONS)


@MODES
async def test_a_call_goes_on_through_cuts_and_a_workers_death(mortal: Mortal, mode: str) -> None:
    """The rotating host ends each connection after a fraction of a second, and the client reconnects."""
    gate = f"mcp-kill-{mortal.name}-{mode}"
    notes: list[str | None] = []
    numbers: list[float] = []
    seen: list[int] = []

    async with AsyncExitStack() as workers:
        first = await workers.enter_async_context(mortal.worker())

        async def noted(progress: float, total: float | None, message: str | None) -> None:
            notes.append(message)
            numbers.append(progress)
            if len(notes) == 5 and not seen:
                seen.append(1)
                await first.kill()
                mortal.model.open_gate(gate)
                await workers.enter_async_context(mortal.worker())

        async with Client(f"{mortal.rotating_url}/mcp", mode=mode) as client:
            question = script(TEXTS, gate=gate, gate_at=4)
            result = await client.call_tool("chat", {"user": question}, progress_callback=noted)
    assert text_of(result) == "".join(TEXTS)
    assert notes == ["chat", *TEXTS]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_task_is_told_anew_where_another_worker_says_other_things(mortal: Mortal) -> None:
    gate, other = f"a2a-kill-{mortal.name}", ["quite ", "other"]
    question = script(["one ", "two ", "three"], gate=gate, gate_at=2, again=other)
    async with AsyncExitStack() as workers, client_of(mortal.url) as client:
        first = await workers.enter_async_context(mortal.worker())
        seen, is_killed = Assembled(), False
        async for event in client.send_message(asked(text(question))):
            seen.take(told(event))
            if seen.texts == ["one two "] and not is_killed:
                is_killed = True
                await first.kill()
                mortal.model.open_gate(gate)
                await workers.enter_async_context(mortal.worker())
        assert is_killed
    assert seen.texts == ["".join(other)]
    assert seen.states[-1] == "TASK_STATE_COMPLETED"


async def test_npms_client_comes_back_by_itself(mortal: Mortal) -> None:
    gate = f"mcp-node-{mortal.name}"
    given = json.dumps({"user": script(TEXTS, gate=gate, gate_at=4)})
    async with mortal.worker() as first, talking("mcp.mjs", mortal.rotating_url, "chat", given) as talk:
        await talk.until(lambda said: len(said) == 5)
        await first.kill()
        mortal.model.open_gate(gate)
        async with mortal.worker():
            lines = await talk.end()
    assert [line["note"]["message"] for line in lines[:-1]] == ["chat", *TEXTS]
    assert lines[-1]["result"]["content"] == [{"type": "text", "text": "".join(TEXTS)}]
    assert lines[-1]["version"] == VERSIONS["legacy"]
