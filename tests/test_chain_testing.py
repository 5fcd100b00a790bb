"""`holdfast_gateway` and its `testing` module: the author of a chain sees in a test what readers receive."""

from __future__ import annotations

import asyncio
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda

import holdfast_gateway
from gateway.client.events import Refused
from gateway.client.events import Result as ClientsResult
from gateway.settings import Settings
from holdfast_gateway import Each, chain, model
from holdfast_gateway.testing import Result, Scripted, calls, run, run_sync
from tests.support.jobs import Jobs, body
from tests.support.processes import REPOSITORY
from workers.chains import chat, registry
from workers.chains.registry import Registry
from workers.delivery.runner import DONE
from workers.stages import Each as EachOfStages

LIGHT = """
import sys, holdfast_gateway
from holdfast_gateway import Each, chain
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the chains that a test registers. Ignore the chains and settings of the environment."""
    monkeypatch.delenv("GATEWAY_CHAINS", raising=False)
    Registry(Settings())
    monkeypatch.setattr(registry, "_marked", dict(registry._marked))


def kinds(result: Result) -> list[str]:
    return [event.type for event in result.events]


def without_ids(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in data.items()
        if name not in ("id", "created_at", "duration_ms", "attempts")
    }


def test_the_packages_import_and_its_marks_take_neither_langchain_nor_redis() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIGHT], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = set(ran.stdout.split())
    assert "holdfast_gateway" in loaded
    assert not loaded & {"langchain_core", "langchain", "langgraph", "redis", "httpx", "starlette"}


def test_each_public_name_is_there_and_is_what_the_old_paths_have() -> None:
    assert all(getattr(holdfast_gateway, name) is not None for name in holdfast_gateway.__all__)
    assert set(holdfast_gateway.__all__) <= set(dir(holdfast_gateway))
    assert (chain, model, Each) == (registry.chain, chat.model, EachOfStages)
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        holdfast_gateway.no_such_name  # noqa: B018
    tool = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
    assert tool["hatch"]["version"]["path"] == "holdfast_gateway/__init__.py"


async def test_a_model_says_what_is_scripted_in_chunks() -> None:
    result = await run(user="Say two words", model=Scripted("one two"))
    assert isinstance(result, ClientsResult)
    assert kinds(result) == ["start", "stage", "message", "message", "stage", "done"]
    assert [event.text for event in result.events if event.text] == ["one", " two"]
    assert (result.text, result.result, result.error) == ("one two", "one two", None)
    assert [(stage.name, stage.state, stage.text) for stage in result.stages] == [
        ("chat", "finished", "one two")
    ]
    assert (result.finish_reason, result.attempts) == ("stop", 1)


def staged() -> dict[str, Any]:
    async def words(inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for given in inputs:
            for word in given["first"]:
                yield f"{given['item']}{word} "

    return {"first": lambda given: [given["input"], 2], "words": Each(words, lambda given: given["first"])}


async def test_the_events_are_those_that_a_worker_writes_to_the_store(redis_url: str) -> None:
    @chain("staged-for-both", stages=("first", "words"))
    def both(settings: Any) -> dict[str, Any]:
        return staged()

    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream(1, chain="staged-for-both")
        assert await jobs.runner.run(body(stream_id)) == DONE
        written = [message.event() for message in await jobs.messages(stream_id)]
    result = await run("staged-for-both", input=1)
    assert [(event.type or "message", without_ids(event.data)) for event in written] == [
        (event.type, without_ids(event.data)) for event in result.events
    ]
    assert [event.type for event in result.events if event.final] == ["done"]
    assert result.result == ["11 12 ", "21 22 "]
    assert result.text == "21 22 "


async def test_a_chain_is_given_by_its_name_its_factory_or_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "holdfast_tested_chains.py").write_text(
        "from holdfast_gateway import chain\n\n\n@chain('echo-of-a-module')\n"
        "def echo(settings):\n    return lambda given: str(given)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=r"there is no chain echo-of-a-module: .* GATEWAY_CHAINS"):
        await run("echo-of-a-module", input=1)
    monkeypatch.setenv("GATEWAY_CHAINS", "holdfast_tested_chains")
    assert (await run("echo-of-a-module", input=1)).text == "1"
    echo = importlib.import_module("holdfast_tested_chains").echo
    assert (await run(echo, input=2)).text == "2"
    assert (await run(RunnableLambda(lambda given: str(given)), input=3)).text == "3"
    mapped = await run({"a": lambda given: given["input"], "b": lambda given: given["a"] + 1}, input=3)
    assert (mapped.result, [stage.name for stage in mapped.stages]) == (4, ["a", "b"])
    with pytest.raises(TypeError, match="an object of the type function is no chain"):
        await run(lambda settings: None, input=1)


async def test_an_agents_script_calls_its_tools() -> None:
    script = Scripted(calls("calculator", expression="2 + 3"), "It is 5.")
    result = await run("agent", user="2 + 3?", model=script)
    started, finished = (event.data for event in result.events if event.type == "tool")
    assert (started["name"], started["input"], finished["output"]) == (
        "calculator",
        {"expression": "2 + 3"},
        "5",
    )
    assert started["call_id"] == finished["call_id"] == "call_1_1"
    assert result.text == "It is 5."
    assert [messages[-1].text for messages in script.asked] == ["2 + 3?", "5"]


async def test_a_script_that_is_at_its_end_is_an_error_but_a_single_text_is_said_again() -> None:
    twice = {"a": ChatPromptTemplate.from_template("{input}"), "b": lambda given: given["a"]}
    told = Scripted("yes")
    both = {stage: ChatPromptTemplate.from_template("{input}") | told for stage in twice}
    assert [stage.text for stage in (await run(both, input="q")).stages] == ["yes", "yes"]
    short = Scripted("yes", calls("no_tool"))
    asked = {stage: ChatPromptTemplate.from_template("{input}") | short for stage in ("a", "b", "c")}
    result = await run(asked, input="q")
    assert result.error is not None
    assert "the script has 2 answers, and one more was asked for" in result.error["detail"]
    with pytest.raises(ValueError, match="at least one answer"):
        Scripted()


async def test_a_passing_failure_is_tried_again_as_a_worker_does() -> None:
    class Busy(Exception):
        is_retryable = True

    script = Scripted(Busy(), "there")
    result = await run(user="q", model=script)
    assert (result.text, result.error, len(script.asked)) == ("there", None, 2)


async def test_a_failure_is_a_result_with_its_code_and_the_chains_own_words() -> None:
    def fails(given: Any) -> str:
        raise LookupError("no such town")

    result = await run(RunnableLambda(fails), input="Atlantis")
    assert result.error is not None
    assert (result.error["code"], kinds(result)[-1], result.result) == ("chain_error", "failed", None)
    assert "LookupError: no such town" in result.error["detail"]
    assert "test_chain_testing.py" in result.error["detail"]


async def test_a_stage_over_its_limit_is_run_by_the_next_attempts_and_then_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_STAGE_LIMIT_TRIES", "3")

    async def waits(given: Any) -> str:
        await asyncio.Event().wait()
        return "never"

    @chain("waits-for-ever", stages=("first", "second"), limits={"second": 0.01})
    def waits_for_ever(settings: Any) -> dict[str, Any]:
        return {"first": RunnableLambda(lambda given: 1), "second": RunnableLambda(waits)}

    result = await run("waits-for-ever", input=1)
    assert result.error is not None
    assert (result.error["code"], result.attempts) == ("time_limit", 3)
    assert [(stage.name, stage.state) for stage in result.stages] == [
        ("first", "finished"),
        ("second", "started"),
    ]


async def test_what_a_gateway_refuses_is_refused_before_the_chain_runs() -> None:
    @chain("town", input={"type": "object", "required": ["town"]})
    def town(settings: Any) -> Any:
        return lambda given: given["town"]

    assert (await run(town, input={"town": "Rome"})).text == "Rome"
    with pytest.raises(Refused, match="input") as refused:
        await run(town, input={"city": "Rome"})
    assert (refused.value.status, refused.value.code) == (422, "invalid")
    with pytest.raises(Refused, match="exactly one of them"):
        await run(town)
    with pytest.raises(Refused, match="names a credential"):
        await run(town, input={"town": "Rome"}, params={"api_key": "k"})


async def test_a_chain_is_told_who_asks_and_what_the_caller_wishes() -> None:
    def tell(given: Any, config: RunnableConfig) -> Any:
        configurable = config["configurable"]
        return [configurable[name] for name in ("tone", "holdfast_owner", "holdfast_metadata")]

    result = await run(
        RunnableLambda(tell), input=None, params={"tone": "dry"}, owner="key:alice", metadata={"page": 1}
    )
    assert result.result == ["dry", "key:alice", {"page": 1}]


async def test_what_a_factory_opens_is_closed_when_the_run_has_ended() -> None:
    log = []

    @chain("opens-and-closes")
    async def opens(settings: Any) -> AsyncIterator[Any]:
        log.append("opened")
        yield lambda given: log[-1]
        log.append("closed")

    assert (await run(opens, input=1)).text == "opened"
    assert log == ["opened", "closed"]


async def test_a_run_can_be_cancelled() -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def waits(given: Any) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return "never"

    running = asyncio.create_task(run(RunnableLambda(waits), input=1))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert stopped.is_set()


def test_a_test_that_is_not_async_runs_a_chain_too() -> None:
    assert run_sync("chat", user="q", model=Scripted("one two")).text == "one two"


async def test_within_an_event_loop_the_other_one_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"use `await run\(…\)`"):
        run_sync("chat", user="q", model=Scripted("one"))


async def test_a_message_of_ones_own_is_said_with_all_that_it_bears() -> None:
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    answer = AIMessage("cut sh", usage_metadata=usage, response_metadata={"finish_reason": "length"})
    result = await run(user="q", model=Scripted(answer))
    assert (result.text, result.usage, result.finish_reason) == ("cut sh", usage, "length")
    whole = await run(
        RunnableLambda(lambda given: Scripted(answer, disable_streaming=True).invoke("q")), input=1
    )
    assert whole.text == "cut sh"


async def test_the_documented_example_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    section = (
        (REPOSITORY / "docs/chains.md").read_text().partition("## Test your chain\n")[2].partition("\n## ")[0]
    )
    module, test = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "weather.py").write_text(module)
    (tmp_path / "test_weather.py").write_text(test)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        made = importlib.import_module("test_weather")
        for name in [name for name in vars(made) if name.startswith("test_")]:
            ran = getattr(made, name)
            await (ran() if asyncio.iscoroutinefunction(ran) else asyncio.to_thread(ran))
    finally:
        sys.modules.pop("weather", None)
        sys.modules.pop("test_weather", None)
