"""A chain's factory: each form that it may have, what it opens, and the error if it makes no chain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableLambda

from gateway.protocol.errors import WrongChain
from gateway.settings import Settings
from workers.chains import registry
from workers.chains.explain import explained
from workers.chains.registry import Registry, chain
from workers.stages import Each

CHAIN: Runnable[Any, Any] = RunnableLambda(lambda given: given)


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the chains that a test marks after the test. The shipped chains are marked before the test."""
    Registry(Settings())
    monkeypatch.setattr(registry, "_marked", dict(registry._marked))


async def plain_on_the_loop(settings: Settings) -> Runnable[Any, Any]:
    assert threading.current_thread() is threading.main_thread()
    return CHAIN


@contextlib.asynccontextmanager
async def managed(settings: Settings) -> AsyncIterator[Runnable[Any, Any]]:
    opened.append(asyncio.current_task())
    yield CHAIN
    opened.append(asyncio.current_task())


async def yielding(settings: Settings) -> AsyncIterator[Runnable[Any, Any]]:
    opened.append(asyncio.current_task())
    yield CHAIN
    opened.append(asyncio.current_task())


@contextlib.contextmanager
def managed_in_threads(settings: Settings) -> Iterator[Runnable[Any, Any]]:
    assert threading.current_thread() is not threading.main_thread()
    opened.append("entered")
    yield CHAIN
    assert threading.current_thread() is not threading.main_thread()
    opened.append("entered")


def yielding_in_threads(settings: Settings) -> Iterator[Runnable[Any, Any]]:
    opened.append("entered")
    yield CHAIN
    opened.append("entered")


opened: list[Any] = []


async def test_a_factory_may_be_async() -> None:
    chain("later")(plain_on_the_loop)
    assert await Registry(Settings()).load("later") == {"later": CHAIN}


@pytest.mark.parametrize("factory", [managed, yielding, managed_in_threads, yielding_in_threads])
async def test_what_a_factory_has_opened_is_closed_once_by_the_task_that_has_opened_it(factory: Any) -> None:
    opened.clear()
    chain("opens")(factory)
    made = Registry(Settings())
    assert await made.load("opens") == {"opens": CHAIN}
    assert await made.load("opens") == {"opens": CHAIN}
    assert len(opened) == 1
    await made.close()
    assert len(opened) == 2
    assert opened[0] == opened[1]  # The same task opens and closes. anyio's task groups require this.


async def test_a_factory_that_asks_for_the_running_loop_gets_it() -> None:
    def factory(settings: Settings) -> Runnable[Any, Any]:
        loops.append(asyncio.get_running_loop())  # LangGraph's async savers do the same.
        return CHAIN

    loops: list[Any] = []
    chain("saver")(factory)
    assert await Registry(Settings()).load("saver") == {"saver": CHAIN}
    assert loops == [asyncio.get_running_loop()]


async def test_an_error_before_the_yield_is_the_factorys_and_the_next_time_it_is_tried_again() -> None:
    tries: list[int] = []

    @contextlib.asynccontextmanager
    async def factory(settings: Settings) -> AsyncIterator[Runnable[Any, Any]]:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError
        yield CHAIN

    chain("shaky")(factory)
    made = Registry(Settings())
    with pytest.raises(ConnectionError):
        await made.load("shaky")
    assert await made.load("shaky") == {"shaky": CHAIN}
    await made.close()


async def test_what_does_not_close_is_told_and_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @contextlib.asynccontextmanager
    async def stuck(settings: Settings) -> AsyncIterator[Runnable[Any, Any]]:
        yield CHAIN
        await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def failing(settings: Settings) -> AsyncIterator[Runnable[Any, Any]]:
        yield CHAIN
        raise ConnectionError("can" + "ary")

    monkeypatch.setattr("workers.chains.making.CLOSE_SECONDS", 0.1)
    chain("stuck")(stuck)
    chain("failing")(failing)
    made = Registry(Settings())
    await made.load("stuck")
    await made.load("failing")
    await made.close()
    assert "what the chain stuck has opened does not close" in caplog.text
    assert "the chain failing did not close what it had opened" in caplog.text
    assert "canary" not in caplog.text


async def test_a_function_is_taken_for_a_runnable() -> None:
    chain("f")(lambda settings: str.upper)
    chain("fs", stages=("a", "b"))(lambda settings: {"b": Each(str.upper, over=list), "a": str.lower})
    made = Registry(Settings())
    assert await (await made.load("f"))["f"].ainvoke("x") == "X"
    parts = await made.load("fs")
    assert list(parts) == ["a", "b"]  # The order is that of `stages`.
    assert await parts["b"].runnable.ainvoke("x") == "X"


def names_the_line(said: str) -> bool:
    return f"({__file__}:" in said


@pytest.mark.parametrize("factory", [lambda: CHAIN, lambda settings, more: CHAIN])
async def test_a_factory_that_does_not_take_the_settings_is_told_so(factory: Any) -> None:
    chain("c")(factory)
    with pytest.raises(WrongChain) as raised:
        await Registry(Settings()).load("c")
    assert "must take one argument, the settings" in str(raised.value)
    assert names_the_line(str(raised.value))


@pytest.mark.parametrize(
    ("stages", "made", "told"),
    [
        ((), None, "gives None: return the chain"),
        ((), 7, "gives an object of the type int for c: a Runnable of LangChain's is needed"),
        ((), RunnableLambda, "gives the class RunnableLambda for c"),
        (("first", "second"), None, "gives None: return the chain"),
        (("first", "second"), CHAIN, "gives an object of the type RunnableLambda: return a mapping"),
        (("first", "second"), {"first": CHAIN}, "lacks second"),
        (
            ("first", "second"),
            {"first": CHAIN, "secnd": CHAIN},
            "lacks second and has secnd, which the mark's `stages` do not name",
        ),
        (("first", "second"), {"first": CHAIN, "second": None}, "gives None for second"),
    ],
)
async def test_what_is_no_chain_is_told_in_a_sentence(
    stages: tuple[str, ...], made: Any, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    def factory(settings: Settings) -> Any:
        return made

    chain("c", stages=stages)(factory)
    known = Registry(Settings())
    with pytest.raises(WrongChain) as raised:
        await known.load("c")
    assert told in str(raised.value)
    assert names_the_line(str(raised.value))
    await known.warm("c")
    assert f"the chain c cannot be made: {raised.value}" in caplog.text


async def test_a_factory_that_ends_the_process_is_only_told(caplog: pytest.LogCaptureFixture) -> None:
    def factory(settings: Settings) -> Any:
        raise SystemExit("no key")

    chain("exits-at-once")(factory)
    await Registry(Settings()).warm("exits-at-once")
    assert "the chain exits-at-once cannot be made" in caplog.text


def raised_by(call: Any) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError


def asks_environment() -> str:
    return os.environ["HOLDFAST_NO_SUCH_VARIABLE"]


def test_a_missing_environment_variable_is_named_also_in_production() -> None:
    error = raised_by(asks_environment)
    for development in (False, True):
        told = explained(error, development=development)
        assert told.startswith("the environment variable HOLDFAST_NO_SUCH_VARIABLE is not set (")
        assert f"{__file__}:" in told
    assert not explained(raised_by(lambda: dict[str, int]()["x"]), development=True).startswith(
        "the environment"
    )


def fails() -> None:
    try:
        raise KeyError("the cause")
    except KeyError as error:
        raise ValueError("can" + "ary") from error


def test_text_and_own_frames_are_told_in_development_alone() -> None:
    error = raised_by(fails)
    told = explained(error, development=True)
    assert told.startswith("ValueError: canary\n")
    assert "because of KeyError: the cause" in told
    assert f"{__file__}:{fails.__code__.co_firstlineno + 2} in fails: raise KeyError" in told
    quiet = explained(error, development=False)
    assert "canary" not in quiet
    assert "the cause'" not in quiet.replace('raise KeyError("the cause")', "")
    assert quiet.endswith("ValueError")


async def test_a_wrong_prompt_key_is_named_in_development() -> None:
    from langchain_core.prompts import ChatPromptTemplate

    prompt = ChatPromptTemplate.from_template("Speak {language}: {question}")
    with pytest.raises(KeyError) as raised:
        await prompt.ainvoke({"question": "q"})
    told = explained(raised.value, development=True)
    assert told.startswith("KeyError: Input to ChatPromptTemplate is missing variables {'language'}.")
    assert len(told.splitlines()) < 12
    assert "language" not in explained(raised.value, development=False)
