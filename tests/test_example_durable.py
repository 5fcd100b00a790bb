"""examples/durable: its steps run in durabletask's own worker, its triggers in Microsoft's own runtime."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.functions_host.client import FunctionsHost
from tests.support.model_server import ModelServer, script
from tests.support.processes import REPOSITORY
from tests.support.producing import producer, told

pytestmark = [pytest.mark.functions, pytest.mark.slow]

PACKAGES = REPOSITORY / "build/durable"
EXAMPLE = REPOSITORY / "examples/durable"
PATH = os.pathsep.join(map(str, (PACKAGES, REPOSITORY)))


class Scripted(ModelServer):
    """A model server.

    Its answer to the outline question is the script for the text, which the next step sends.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def told(self, body: Any) -> dict[str, Any]:
        question = body["messages"][-1]["content"]
        if question.startswith("An outline") and '"chunks": []' not in self._text:
            return {"chunks": [self._text]}
        return super().told({**body, "messages": [{"role": "user", "content": self._text}]})


async def run(redis_url: str, model: ModelServer, instance: str, topic: str) -> str:
    """Run one orchestration to its end and return its final status and result."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.durable_run", instance, topic),
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": PATH, "REDIS_URL": redis_url, **model.environment()},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_an_activity_that_is_tried_again_takes_its_stream_over(redis_url: str, redis: Redis) -> None:
    text = script(["c ", "d ", "e "], cut_at=2, cut_times=2)  # The connection to the model breaks once.
    async with Scripted(text) as model:
        ended = await run(redis_url, model, "order-17", "a topic")
        questions = len(model.requests)
    async with producer(redis_url) as made:
        stream = await made.open(chain="report", stages=("outline", "text"), key="order-17")
    assert ended == f'COMPLETED "/stream/{stream.id}"\n'
    words = ["start", "+outline", text, "-outline", "+text", "c ", "d ", "e ", "-text", "done"]
    assert await told(redis, stream.id) == words
    assert questions == 3  # The outline was asked for once, the text twice.


async def test_when_no_attempt_is_left_the_stream_has_failed(redis_url: str, redis: Redis) -> None:
    async with Scripted(script([], status=500)) as model:
        ended = await run(redis_url, model, "order-18", "a topic")
    async with producer(redis_url) as made:
        stream = await made.open(chain="report", stages=("outline", "text"), key="order-18")
    assert ended == f'COMPLETED "/stream/{stream.id}"\n'
    assert (await told(redis, stream.id))[-1] == "failed"


async def test_its_triggers_are_indexed_by_the_runtime(redis_url: str, tmp_path: Path) -> None:
    for item in EXAMPLE.iterdir():
        if not item.name.startswith("__"):
            (tmp_path / item.name).symlink_to(item)
    environment = {"PYTHONPATH": PATH, "REDIS_URL": redis_url, "AzureWebJobsStorage": ""}
    async with FunctionsHost(tmp_path, environment, anew=True) as host:
        found = {function["name"]: function["type"] for function in host.functions}
    ours = {"start": "httpTrigger", "report": "orchestrationTrigger"}
    activities = ("write_outline", "write_text", "give_up", "address")
    assert ours | dict.fromkeys(activities, "activityTrigger") == {
        name: kind for name, kind in found.items() if not name.lower().startswith("builtin")
    }
