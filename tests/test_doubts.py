"""A tool call that was running when its worker died: called again, refused, or asked about."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_tool_call
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool, tool

from gateway.protocol.errors import Invalid
from gateway.streams.resume import parse_resume
from tests.support.adapted import Scripted, calls
from tests.support.jobs import Jobs, body, eventually
from tests.support.processes import GatewayProcess
from tests.support.proxy import Proxy
from workers.chains.registry import chain
from workers.langchain.doubts import ToolUnknown

ASKED = [{"role": "user", "content": "q"}]
KEYED = '''
import asyncio
from pathlib import Path
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import StructuredTool
from tests.support.adapted import Scripted, calls
from workers.chains.registry import chain

HERE = Path(__file__).parent

def note(name):
    with (HERE / name).open("a") as file:
        file.write("x")

def made(name, **metadata):
    async def pay(to: str, config: RunnableConfig) -> str:
        """Pay, by one who obeys the key."""
        key = HERE / config["configurable"]["holdfast_idempotency_key"]
        if not key.exists():
            key.touch()
            note(f"{name}.paid")
        note(f"{name}.asked")
        while (HERE / "gate").exists():
            await asyncio.sleep(0.01)
        return f"paid {to}"

    pays = StructuredTool.from_function(coroutine=pay, metadata=metadata)
    return create_agent(Scripted(answers=[calls("pay", to="ada"), AIMessage("done")]), [pays])

chain("keyed")(lambda _: made("keyed"))
chain("asking")(lambda _: made("asking", unknown="ask"))
'''


class Paying:
    """A tool that pays, and does not return while it is stuck. It is used in an agent or alone."""

    def __init__(self, name: str, unknown: str, *, alone: bool = False, in_a_thread: bool = False) -> None:
        self.name, self.paid, self.stuck = name, 0, True
        self.entered, self.gate = asyncio.Event(), asyncio.Event()
        self.heard: list[Any] = []
        loop = asyncio.get_running_loop()

        def pay(to: str) -> str:
            """Pay."""
            self.paid += 1
            if self.stuck:
                loop.call_soon_threadsafe(self.entered.set)
                asyncio.run_coroutine_threadsafe(self.gate.wait(), loop).result()
            return f"paid {to}"

        async def pay_async(to: str) -> str:
            """Pay."""
            self.paid += 1
            if self.stuck:
                self.entered.set()
                await self.gate.wait()
            return f"paid {to}"

        coroutine = None if in_a_thread else pay_async
        pays = StructuredTool.from_function(
            func=pay, coroutine=coroutine, name="pay", metadata={"unknown": unknown}
        )

        class Watched(Scripted):
            def _next(model, messages: list[Any]) -> AIMessage:  # noqa: N805 - self is the outer one
                self.heard = [message.content for message in messages if isinstance(message, ToolMessage)]
                return super()._next(messages)

        async def run(given: Any) -> str:
            try:
                return str(await pays.ainvoke({"to": "ada"}))
            except ToolUnknown:
                return "swallowed"

        self.run = run

        def factory(_: Any) -> Any:
            if alone:
                return RunnableLambda(run)
            return create_agent(Watched(answers=[calls("pay", to="ada"), AIMessage("done")]), [pays])

        chain(name)(factory)

    async def dies(self, jobs: Jobs, stream_id: str) -> None:
        """Run an attempt and stop it inside the tool."""
        self.stuck = True
        self.entered.clear()
        attempt = asyncio.create_task(jobs.runner.run(body(stream_id)))
        await self.entered.wait()
        attempt.cancel()
        await attempt
        self.gate.set()
        self.stuck = False
        self.gate = asyncio.Event()


async def goes_on(jobs: Jobs, stream_id: str) -> Any:
    """Run the next attempt and return the data of its last event."""
    await jobs.runner.run(body(stream_id))
    return (await jobs.messages(stream_id))[-1].event().data


async def answered(jobs: Jobs, stream_id: str, response: Any, status: str = "resolved") -> str:
    [question] = (await jobs.record(stream_id)).questions or []
    one = {"interrupt_id": question["id"], "status": status}
    one |= {"response": response} if status == "resolved" else {}
    return (await jobs.gateway.resume(stream_id, parse_resume({"responses": [one]}), owner="anonymous")).id


@pytest.mark.parametrize("alone", [False, True])
async def test_by_default_it_is_called_again(redis_url: str, alone: bool) -> None:
    paying = Paying(f"doubt-retry-{alone}".lower(), "retry", alone=alone)
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream(ASKED, chain=paying.name)
        await paying.dies(jobs, stream_id)
        assert (await goes_on(jobs, stream_id))["finish_reason"] == "stop"
    assert paying.paid == 2


@pytest.mark.parametrize(("unknown", "alone"), [("fail", False), ("fail", True), ("ask", True)])
async def test_one_that_may_not_be_called_again_ends_the_stream(
    redis_url: str, unknown: str, alone: bool
) -> None:
    """The stream also ends if the chain catches the error, and with `ask` if nobody can be asked."""
    paying = Paying(f"doubt-{unknown}-{alone}".lower(), unknown, alone=alone)
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream(ASKED, chain=paying.name)
        await paying.dies(jobs, stream_id)
        told = await goes_on(jobs, stream_id)
        assert (told["code"], told["retryable"]) == ("tool_unknown", False)
        assert paying.paid == 1


@pytest.mark.parametrize("in_a_thread", [False, True])
@pytest.mark.parametrize("answer", ["retry", {"output": "paid by hand"}], ids=["retry", "output"])
async def test_one_that_asks_goes_on_with_the_answer(redis_url: str, answer: Any, in_a_thread: bool) -> None:
    paying = Paying(f"doubt-ask-{in_a_thread}-{len(answer)}".lower(), "ask", in_a_thread=in_a_thread)
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream(ASKED, chain=paying.name)
        await paying.dies(jobs, stream_id)
        told = await goes_on(jobs, stream_id)
        assert (told["finish_reason"], paying.paid) == ("interrupted", 1)
        [question] = told["interrupts"]
        asked = {"reason": "tool_unknown", "tool": "pay", "call_id": "c1", "input": {"to": "ada"}}
        assert question["value"] == asked
        assert "reset" not in await jobs.kinds(stream_id)
        with pytest.raises(Invalid):
            await answered(jobs, stream_id, "yes")
        second = await answered(jobs, stream_id, answer)
        assert (await goes_on(jobs, second))["finish_reason"] == "stop"
        assert paying.heard == [answer["output"] if isinstance(answer, dict) else "paid ada"]
        assert paying.paid == (1 if isinstance(answer, dict) else 2)


async def test_what_was_called_before_it_may_differ(redis_url: str) -> None:
    """The next attempt leaves out a call that ended in the first attempt.

    The state of the stopped call is still unknown.
    """
    paying = Paying("doubt-differs", "fail", alone=True)
    looks = [True, False]

    @tool
    async def look(where: str) -> str:
        """Look."""
        return where

    async def run(given: Any) -> Any:
        if looks.pop(0):
            await look.ainvoke({"where": "here"})
        return await paying.run(given)

    chain("doubt-differs-alone")(lambda _: RunnableLambda(run))
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream(ASKED, chain="doubt-differs-alone")
        await paying.dies(jobs, stream_id)
        assert (await goes_on(jobs, stream_id))["code"] == "tool_unknown"
    assert (looks, paying.paid) == ([], 1)


@pytest.mark.parametrize("deaths", [1, 2])
async def test_attempts_that_differ_do_not_forget_it(redis_url: str, deaths: int) -> None:
    """Attempts in between send other output and die before they reach the call.

    The other output makes the logged call invalid.
    """
    paying = Paying(f"doubt-voided-{deaths}", "fail", alone=True)
    gate, said = asyncio.Event(), 0

    @tool
    async def look(where: str) -> str:
        """Look."""
        if 1 < said <= 1 + deaths:
            gate.set()
            await asyncio.Event().wait()
        return where

    async def run(given: Any) -> Any:
        nonlocal said
        said += 1
        await look.ainvoke({"where": f"place {said}"})
        return await paying.run(given)

    chain(f"doubt-voided-{deaths}-alone")(lambda _: RunnableLambda(run))
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream(ASKED, chain=f"doubt-voided-{deaths}-alone")
        await paying.dies(jobs, stream_id)
        for _ in range(deaths):
            gate.clear()
            attempt = asyncio.create_task(jobs.runner.run(body(stream_id)))
            await gate.wait()
            attempt.cancel()
            await attempt
        assert (await goes_on(jobs, stream_id))["code"] == "tool_unknown"
    assert (said, paying.paid) == (deaths + 2, 1)


async def test_one_that_dies_again_is_asked_about_again(redis_url: str) -> None:
    paying = Paying("doubt-again", "ask")
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream(ASKED, chain=paying.name)
        await paying.dies(jobs, stream_id)
        await goes_on(jobs, stream_id)
        second = await answered(jobs, stream_id, "retry")
        await paying.dies(jobs, second)
        [question] = (await goes_on(jobs, second))["interrupts"]
        assert (question["value"]["times"], paying.paid) == (2, 2)
        third = await answered(jobs, second, {"output": "paid at last"})
        assert (await goes_on(jobs, third))["finish_reason"] == "stop"
        assert (paying.heard, paying.paid) == (["paid at last"], 2)


async def test_a_question_that_is_taken_back_ends_the_stream(redis_url: str) -> None:
    paying = Paying("doubt-cancelled", "ask")
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream(ASKED, chain=paying.name)
        await paying.dies(jobs, stream_id)
        await goes_on(jobs, stream_id)
        told = await goes_on(jobs, await answered(jobs, stream_id, None, "cancelled"))
        assert (told["code"], paying.paid) == ("tool_unknown", 1)


async def test_a_call_that_nobody_has_begun_is_not_asked_about(redis_url: str) -> None:
    paying = Paying("doubt-none", "ask")
    paying.stuck = False
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream(ASKED, chain=paying.name)
        assert (await goes_on(jobs, stream_id))["finish_reason"] == "stop"
    assert paying.paid == 1


def test_tools_of_others_may_have_such_metadata() -> None:
    @tool
    def pay(to: str) -> str:
        """Pay."""
        return to

    pay.metadata = {"unknown": "fail"}
    assert pay.invoke({"to": "ada"}) == "ada"


@pytest.mark.parametrize("in_a_thread", [False, True])
@pytest.mark.parametrize("unknown", ["ask", "fail"])
async def test_the_call_stands_in_the_log_before_its_tool_is_called(
    redis_url: str, unknown: str, in_a_thread: bool
) -> None:
    """A tool may end its worker with its first instruction, and then there is no time to write."""
    entered, held = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def pay(to: str) -> str:
        """Pay."""
        loop.call_soon_threadsafe(entered.set)
        return to

    async def pay_async(to: str) -> str:
        """Pay."""
        return pay(to)

    @wrap_tool_call
    async def hold(request: Any, handler: Any) -> Any:
        proxy.hold("commands")
        held.set()
        return await handler(request)

    pays = StructuredTool.from_function(
        func=pay, coroutine=None if in_a_thread else pay_async, name="pay", metadata={"unknown": unknown}
    )
    name = f"doubt-stands-{unknown}-{in_a_thread}".lower()
    answers = [calls("pay", to="ada"), AIMessage("done")]
    chain(name)(lambda _: create_agent(Scripted(answers=answers), [pays], middleware=[hold]))
    async with Proxy(redis_url) as proxy, Jobs(proxy.url) as jobs:
        stream_id = await jobs.stream(ASKED, chain=name)
        run = asyncio.create_task(goes_on(jobs, stream_id))
        await held.wait()
        with pytest.raises(TimeoutError):  # Only a time limit can show that the tool is not called.
            await asyncio.wait_for(entered.wait(), 0.5)
        proxy.release()
        assert (await run)["finish_reason"] == "stop"
    assert entered.is_set()


async def test_after_a_kill_within_the_tool_its_side_effect_is_made_once(
    redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "paying.py").write_text(KEYED)
    (tmp_path / "gate").touch()
    environment = {
        "REDIS_URL": redis_url,
        "GATEWAY_CHAINS": "paying",
        "GATEWAY_LEASE_SECONDS": "2",
        "PYTHONPATH": str(tmp_path),
    }
    names = ("keyed", "asking")
    async with Jobs(redis_url) as jobs:
        jobs.gateway.chains = {**jobs.gateway.chains, **{name: (name,) for name in names}}
        jobs.gateway.learn(jobs.gateway.chains, {}, {})

        async def have_paid() -> bool:
            files = [tmp_path / f"{name}.{kind}" for name in names for kind in ("asked", "paid")]
            # The file has content; it is not only created.
            return all(one.exists() and one.stat().st_size for one in files)

        async with GatewayProcess("worker", environment) as first:
            streams = [await jobs.stream(ASKED, chain=name) for name in names]
            await eventually(have_paid)
            await first.kill()
        (tmp_path / "gate").unlink()
        async with GatewayProcess("worker", environment):
            for stream_id in streams:
                await jobs.ended(stream_id)
        ends = [(await jobs.messages(stream_id))[-1].event().data for stream_id in streams]
    assert [(tmp_path / f"{name}.paid").read_text() for name in names] == ["x", "x"]
    assert [(tmp_path / f"{name}.asked").read_text() for name in names] == ["xx", "x"]
    assert ends[0]["finish_reason"] == "stop"
    assert "interrupts" in ends[1], ends[1]
    assert ends[1]["interrupts"][0]["value"]["reason"] == "tool_unknown"
