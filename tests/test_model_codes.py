"""A model's failure, by the answer of its server: the error code, the number of tries, and the pauses."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_openai import AzureChatOpenAI, ChatOpenAI

from tests.support.jobs import Jobs, body
from tests.support.model_server import ModelServer, script
from workers.attempt import retry
from workers.attempt.failures import failure, may_pass
from workers.attempt.retry import asked_seconds, pause
from workers.chains.registry import chain

PASSING = {"model_rate_limited", "model_timeout", "model_connection", "model_error"}


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.01)


def client(model: ModelServer, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="m", base_url=f"{model.url}/v1", max_retries=0, api_key="k", **options)  # type: ignore[arg-type]


async def failing(
    redis_url: str, made: Any, asked: list[str], model: ModelServer
) -> list[tuple[str, bool, int]]:
    """Return for each question the error code, whether it is retryable, and the number of model calls."""
    chain("failing")(lambda _: made)
    async with Jobs(redis_url, stage_tries=2) as jobs:
        found = []
        for question in asked:
            before = len(model.requests)
            stream_id = await jobs.stream([{"role": "user", "content": question}], chain="failing")
            await jobs.runner.run(body(stream_id))
            error = (await jobs.fold(stream_id)).error
            assert error is not None, question
            found.append((error["code"], error["retryable"], len(model.requests) - before))
        return found


STATUSES = {
    301: "model_not_found",
    302: "model_not_found",
    402: "model_permission_denied",
    405: "model_not_found",
    408: "model_timeout",
    409: "model_error",
    413: "model_invalid_request",
    422: "model_invalid_request",
    451: "model_permission_denied",
    502: "model_error",
    529: "model_error",
}


async def test_fault_103_a_status_decides_and_what_will_not_pass_is_asked_once(redis_url: str) -> None:
    async with ModelServer() as model:
        asked = [script([], status=status) for status in STATUSES]
        found = await failing(redis_url, client(model), asked, model)
    for (status, code), told in zip(STATUSES.items(), found, strict=True):
        assert told == (code, code in PASSING, 2 if code in PASSING else 1), status


CODES: list[tuple[int, dict[str, Any], str, bool]] = [
    (429, {"code": "insufficient_quota", "type": "insufficient_quota"}, "model_rate_limited", False),
    (429, {"code": "rate_limit_exceeded", "type": "requests"}, "model_rate_limited", True),
    (400, {"code": "context_length_exceeded", "type": "invalid_request_error"}, "context_overflow", False),
    (400, {"code": "content_filter", "innererror": {"code": "x"}}, "model_invalid_request", False),
    (500, {"code": "context_length_exceeded"}, "context_overflow", False),
]


async def test_fault_103_a_code_decides_before_the_status(redis_url: str) -> None:
    async with ModelServer() as model:
        asked = [script([], status=status, error=error) for status, error, *_ in CODES]
        found = await failing(redis_url, client(model), asked, model)
        azure = AzureChatOpenAI(
            azure_endpoint=model.url,
            azure_deployment="d",
            api_version="2024-10-21",
            api_key="k",  # type: ignore[arg-type]
            max_retries=0,
        )
        assert found == await failing(redis_url, azure, asked, model)
    assert found == [(code, passes, 2 if passes else 1) for *_, code, passes in CODES]


IN_STREAM: list[tuple[dict[str, Any], str, bool]] = [
    ({"code": "context_length_exceeded", "type": "invalid_request_error"}, "context_overflow", False),
    ({"code": "insufficient_quota", "type": "insufficient_quota"}, "model_rate_limited", False),
    ({"code": None, "type": "invalid_request_error"}, "model_invalid_request", False),
    ({"code": "rate_limit_exceeded"}, "model_rate_limited", True),
    ({"code": 429}, "model_rate_limited", True),
    ({"code": 402}, "model_permission_denied", False),
    ({"code": "server_error", "type": "server_error"}, "model_error", True),
    ({"type": "overloaded_error"}, "model_error", True),
    ({}, "model_error", True),
]


async def test_fault_103_an_error_within_the_stream_is_read_like_any_other(redis_url: str) -> None:
    async with ModelServer() as model:
        asked = [
            script(["a", "b"], error_at=1, error={"message": f"case {number}", **error})
            for number, (error, *_) in enumerate(IN_STREAM)
        ]
        found = await failing(redis_url, client(model), asked, model)
        assert found == [(code, passes, 2 if passes else 1) for _, code, passes in IN_STREAM]
        named = [
            (error, code, passes) for error, code, passes in IN_STREAM if isinstance(error.get("code"), str)
        ]
        asked = [script(["a"], error={"message": "m", **error}) for error, *_ in named]
        found = await failing(redis_url, client(model, use_responses_api=True), asked, model)
        assert found == [(code, passes, 2 if passes else 1) for _, code, passes in named]


BODIES = {
    "nothing": "",
    "a page": "<html><body>Bad gateway</body></html>",
    "an error as JSON": json.dumps({"error": {"message": "no"}}),
    "empty data": "data:\n\n",
    "a lone retry": "retry: 1000\n\n",
    "half JSON": 'data: {"choices": [{"delta"\n\n',
    "another form": "data: 5\n\n",
    "only the end": "data: [DONE]\n\n",
}


async def test_fault_104_an_answer_that_cannot_be_read_is_the_servers_fault(redis_url: str) -> None:
    from langchain.agents import create_agent

    async with ModelServer() as model:
        asked = [script([name], raw=raw) for name, raw in BODIES.items()]
        asked.append(script(["page"], raw=BODIES["a page"], media="text/html"))
        for made in (client(model), create_agent(client(model), [])):
            found = await failing(redis_url, made, asked, model)
            assert set(found) <= {("model_error", True, 2), ("model_connection", True, 2)}, found
        plain = RunnableLambda(lambda given: given) | client(model, disable_streaming=True)
        found = await failing(
            redis_url, plain, [script(["x"], raw=BODIES["a page"], media="text/html")], model
        )
        assert found == [("model_error", True, 2)]


async def test_fault_104_what_a_chain_does_wrong_before_it_asks_is_its_own(redis_url: str) -> None:
    async with ModelServer() as model:
        wrong: list[Runnable[Any, Any]] = [
            RunnableLambda(lambda _: json.loads("{")),
            RunnableLambda[Any, Any](lambda _: 5) | client(model),
            RunnableLambda[Any, Any](lambda _: [("nobody", "x")]) | client(model),
            GenericFakeChatModel(messages=iter([])),
        ]
        for made in wrong:
            assert await failing(redis_url, made, ["q"], model) == [("chain_error", False, 0)]


class Told(Exception):
    def __init__(self, **headers: str) -> None:
        self.response = SimpleNamespace(
            headers={name.replace("_", "-"): said for name, said in headers.items()}
        )
        self.is_retryable = True


def test_fault_105_every_way_to_ask_for_patience_is_obeyed() -> None:
    assert asked_seconds(Told(retry_after="1.5")) == 1.5
    assert asked_seconds(Told(retry_after_ms="250")) == 0.25
    assert asked_seconds(Told(x_ms_retry_after_ms="1500.5")) == 1.5005
    assert asked_seconds(Told(retry_after_ms="400", retry_after="9")) == 0.4
    assert asked_seconds(Told(retry_after_ms="soon", retry_after="3")) == 3
    assert pause(Told(retry_after_ms="61000"), 1, 3) is None
    for none in ("-1", "1e9", "1.5.5", "٣", "", "inf", "nan"):
        assert asked_seconds(Told(retry_after_ms=none, retry_after=none)) == 0


async def test_fault_105_the_pause_is_as_long_as_the_server_asks(redis_url: str) -> None:
    async with ModelServer() as model:
        loop = asyncio.get_running_loop()
        for name, said in (("retry-after-ms", "300"), ("x-ms-retry-after-ms", "300"), ("retry-after", "0.3")):
            asked = script([name], status=429, headers={name: said})
            began = loop.time()
            assert await failing(redis_url, client(model), [asked], model) == [
                ("model_rate_limited", True, 2)
            ]
            assert loop.time() - began >= 0.3


class Own(Exception):
    """An exception that the author of a chain defines."""


def test_fault_112_what_is_told_as_retryable_is_what_is_tried_again() -> None:
    """The author's `is_retryable` decides, except when a model's server has refused permanently."""
    from langchain_core.exceptions import ModelInvalidRequestError, ModelRateLimitError

    cases: list[tuple[type[BaseException], bool | None, bool]] = [
        (Own, None, False),
        (Own, True, True),
        (TimeoutError, None, True),
        (TimeoutError, False, False),
        (ModelRateLimitError, None, True),
        (ModelRateLimitError, False, False),
        (ModelInvalidRequestError, None, False),
        (SystemExit, None, False),
    ]
    for kind, said, passes in cases:
        error = kind("x")
        if said is not None:
            error.is_retryable = said  # type: ignore[attr-defined]
        assert failure(error).data["retryable"] is may_pass(error) is passes
        assert (pause(error, 1, 2) is not None) is passes
