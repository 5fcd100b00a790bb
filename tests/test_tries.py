"""A stage whose model fails in a way that may pass: tried again, without a seam or with one reset."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.exceptions import ModelConnectionError, ModelInvalidRequestError, ModelRateLimitError
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_openai import ChatOpenAI

from gateway.protocol.fold import Fold
from tests.support.jobs import Jobs, body
from tests.support.model_server import ModelServer, script
from workers.attempt import retry
from workers.attempt.retry import LONGEST_ASKED_SECONDS, LONGEST_SECONDS, asked_seconds, pause
from workers.chains.registry import chain


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.02)


class Asked(ModelRateLimitError):
    def __init__(self, after: str) -> None:
        super().__init__("slow down")
        self.response = SimpleNamespace(headers={"retry-after": after})


def test_pauses_grow_with_jitter_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.5)
    pauses = [pause(ModelConnectionError("x"), number, 100) for number in range(1, 20)]
    for number, waited in enumerate(pauses):
        assert waited is not None
        grown = min(0.5 * 2**number, LONGEST_SECONDS)
        assert grown / 2 <= waited <= grown


def test_the_last_try_and_an_error_that_stays_are_not_waited_for() -> None:
    assert pause(ModelConnectionError("x"), 3, 3) is None
    assert pause(ModelInvalidRequestError("x"), 1, 3) is None
    assert pause(ValueError("x"), 1, 3) is None


def test_retry_after_is_obeyed_up_to_a_bound() -> None:
    waited = pause(Asked("7"), 1, 3)
    assert waited is not None
    assert 7 <= waited < 8
    assert pause(Asked(f"{LONGEST_ASKED_SECONDS + 1:.0f}"), 1, 3) is None
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < asked_seconds(Asked(date)) <= 30
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    huge = ("01 Jan 99999999999999 00:00:00 GMT", f"Mon, 01 Jan 2024 00:00:00 +{'9' * 20}")
    for none in ("", "soon", "-1", past, "9" * 5000 + "x", *huge):
        assert asked_seconds(Asked(none)) == 0


async def ends(redis_url: str, asked: str, model: ModelServer, **settings: Any) -> tuple[Fold, list[str]]:
    """What a reader has at the end, and the resets' reasons."""
    options: dict[str, Any] = {"base_url": f"{model.url}/v1", "api_key": "k", "max_retries": 0}

    def factory(_: Any) -> Runnable[Any, Any]:
        return ChatOpenAI(model="m", stream_chunk_timeout=1.5, **options)

    chain("tried")(factory)
    async with Jobs(redis_url, **settings) as jobs:
        stream_id = await jobs.stream([{"role": "user", "content": asked}], chain="tried")
        await jobs.runner.run(body(stream_id))
        events = [message.event() for message in await jobs.messages(stream_id)]
        assert (await jobs.record(stream_id)).attempt == 1
        return await jobs.fold(stream_id), [e.data["reason"] for e in events if e.type == "reset"]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_model_that_fails_at_first_is_asked_again(
    redis_url: str, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.INFO)
    async with ModelServer() as model:
        asked = script(["a", "b"], status=status, times=2)
        fold, resets = await ends(redis_url, asked, model)
        assert (fold.ended, fold.text, resets) == ("done", "ab", [])
        assert len(model.requests) == 3
        assert "scripted, asked" not in caplog.text


async def test_retry_after_is_waited_for(redis_url: str) -> None:
    async with ModelServer() as model:
        began = monotonic()
        fold, _ = await ends(redis_url, script(["a"], status=429, times=1, retry_after=1), model)
        assert fold.text == "a"
        assert monotonic() - began >= 1


async def test_text_already_shown_is_not_repeated(redis_url: str) -> None:
    async with ModelServer() as model:
        fold, resets = await ends(redis_url, script(["a", "b", "c"], cut_at=2, cut_times=2), model)
        assert (fold.text, resets) == ("abc", [])
        assert len(model.requests) == 3


class Fickle(ModelServer):
    """Says something else each time, and is cut in the middle the first two times."""

    def told(self, body: Any) -> dict[str, Any]:
        number = len(self.requests)
        return {"chunks": [f"{number}a", f"{number}b"], "cut_at": 1 if number < 3 else None}


async def test_other_text_replaces_what_was_shown_by_one_reset_each(redis_url: str) -> None:
    async with Fickle() as model:
        fold, resets = await ends(redis_url, "q", model)
        assert (fold.text, resets) == ("3a3b", ["retried", "retried"])


class Stalling(ModelServer):
    """Stops in the middle of its first answer."""

    def told(self, body: Any) -> dict[str, Any]:
        return {"chunks": ["a", "b"]} | ({"gate": "never", "gate_at": 1} if len(self.requests) == 1 else {})


async def test_a_stall_is_an_error_like_any_other(redis_url: str) -> None:
    async with Stalling() as model:
        fold, resets = await ends(redis_url, "q", model)
        assert (fold.text, resets) == ("ab", [])
        assert len(model.requests) == 2


@pytest.mark.parametrize("most", [1, 2, 4])
async def test_tries_have_an_end(redis_url: str, most: int) -> None:
    async with ModelServer() as model:
        fold, _ = await ends(redis_url, script(["a"], status=503), model, stage_tries=most)
        assert fold.error is not None
        assert (fold.error["code"], fold.error["retryable"]) == ("model_error", True)
        assert len(model.requests) == most


async def test_what_will_not_pass_fails_at_once(redis_url: str) -> None:
    async with ModelServer() as model:
        fold, _ = await ends(redis_url, script(["a"], status=400), model)
        assert fold.error is not None
        assert fold.error["code"] == "model_invalid_request"
        assert len(model.requests) == 1


async def test_the_lease_is_renewed_while_a_stage_waits(redis_url: str) -> None:
    async with ModelServer() as model:
        asked = script(["a"], status=429, times=1, retry_after=2)
        fold, _ = await ends(redis_url, asked, model, lease=0.5)
        assert (fold.text, len(model.requests)) == ("a", 2)


class Own(Exception):
    """An exception of an author's, which says of itself that it may pass."""

    is_retryable = True


@pytest.mark.parametrize(
    ("tries_of", "asked"),
    [
        (None, (3, 3)),
        (1, (1, 1)),
        ({"first": 1}, (1, 3)),
        ({"last": 2}, (3, 2)),
        ({"first": 2, "last": 4}, (2, 4)),
    ],
)
@pytest.mark.parametrize("kind", [Own, TimeoutError])
async def test_fault_112_each_stage_is_tried_as_often_as_its_chain_says(
    redis_url: str, kind: type[Exception], tries_of: Any, asked: tuple[int, int]
) -> None:
    calls = {"first": 0, "last": 0}

    def failing(name: str, passes: bool) -> Runnable[Any, Any]:
        async def run(given: Any) -> str:
            calls[name] += 1
            if passes and calls[name] == asked[0]:
                return name
            raise kind("x")

        return RunnableLambda(run)

    made = {"first": failing("first", True), "last": failing("last", False)}
    name = f"policy-{kind.__name__.lower()}-{asked[0]}{asked[1]}"
    chain(name, stages=("first", "last"), tries=tries_of)(lambda _: made)
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain=name)
        await jobs.runner.run(body(stream_id))
        error = (await jobs.fold(stream_id)).error
        assert error is not None
        assert (error["code"], error["retryable"]) == ("chain_error" if kind is Own else "timeout", True)
    assert (calls["first"], calls["last"]) == asked


def test_a_policy_that_names_what_is_not_there_is_refused() -> None:
    for wrong in (0, {"other": 2}, {"one": 0}, {"one": True}, {"one": 1.5}):
        with pytest.raises(ValueError, match="tries"):
            chain("refused", stages=("one",), tries=wrong)  # type: ignore[arg-type]


class Flaky(Exception):
    """Of a library, which says nothing of itself."""


def only_busy(error: BaseException) -> bool | None:
    """A rule of an author's: of what is said, and against what is known."""
    return "busy" in str(error) if isinstance(error, Flaky | TimeoutError) else None


@pytest.mark.parametrize(
    ("rule", "error", "asked", "retryable"),
    [
        (None, Flaky("busy"), 1, False),
        (Flaky, Flaky("x"), 3, True),
        ((KeyError, Flaky), Flaky("x"), 3, True),
        ({"one": Flaky}, Flaky("x"), 3, True),
        (KeyError, Flaky("x"), 1, False),
        (only_busy, Flaky("busy"), 3, True),
        (only_busy, Flaky("gone"), 1, False),
        (only_busy, TimeoutError("gone"), 1, False),
        (only_busy, Own("x"), 3, True),
        (Exception, ModelInvalidRequestError("x"), 3, True),
    ],
)
async def test_a_chain_says_which_failures_of_a_stage_may_pass(
    redis_url: str, rule: Any, error: Exception, asked: int, retryable: bool
) -> None:
    calls = []

    async def run(given: Any) -> str:
        calls.append(given)
        raise error

    name = f"rule-{abs(hash((str(rule), str(error), asked)))}"
    chain(name, stages=("one",), retry_on=rule)(lambda _: {"one": RunnableLambda(run)})
    async with Jobs(redis_url) as jobs:
        stream_id = await jobs.stream("q", chain=name)
        await jobs.runner.run(body(stream_id))
        told = (await jobs.fold(stream_id)).error
    assert told is not None
    assert (len(calls), told["retryable"]) == (asked, retryable)


async def test_what_the_gateway_itself_stops_no_rule_tries_again(redis_url: str) -> None:
    calls = []

    async def talk(given: Any) -> AsyncIterator[str]:
        calls.append(given)
        for _ in range(5):
            yield "x"

    chain("talks", retry_on=Exception)(lambda _: RunnableLambda(talk))
    async with Jobs(redis_url, max_output_tokens=3) as jobs:
        stream_id = await jobs.stream("q", chain="talks")
        await jobs.runner.run(body(stream_id))
        told = (await jobs.fold(stream_id)).error
    assert told is not None
    assert (told["code"], len(calls)) == ("output_limit", 1)


def test_a_rule_in_no_form_is_refused() -> None:
    for wrong in ("x", 3, int, (), [Flaky, "x"], {"other": Flaky}, {"one": None}):
        with pytest.raises(ValueError, match="the retry_on of refused"):
            chain("refused", stages=("one",), retry_on=wrong)
