"""The model's failures as stable codes. The text of an exception is not stored or shown (rows 27 and 28)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_core.language_models import chat_models
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models import base

from tests.support.jobs import Jobs, body
from tests.support.model_server import ModelServer, script
from workers.attempt.failures import failure
from workers.chains.registry import chain
from workers.langchain.model_errors import CLASSES, NOTHING_CAME, READERS

CANARY = "canary-4711-secret"
KEY = "key-canary-0815"


def real_client(url: str, **options: Any) -> None:
    """Register the chain `real-client`.

    The chain is a real client of the scripted model, which does not retry by itself.
    """
    settings = {"base_url": f"{url}/v1", "api_key": KEY, "max_retries": 0, "model": "m", **options}

    def factory(_: Any) -> Runnable[Any, Any]:
        return ChatOpenAI(**settings)

    chain("real-client")(factory)


async def fails(redis_url: str, asked: str, **options: Any) -> tuple[str, bool, str]:
    """Return the error code, whether a retry is allowed, and the text that was kept."""
    async with ModelServer() as model:
        real_client(model.url, **options)
        async with Jobs(redis_url, stage_tries=1) as jobs:
            stream_id = await jobs.stream([{"role": "user", "content": asked}], chain="real-client")
            assert await jobs.runner.run(body(stream_id)) is not None
            fold = await jobs.fold(stream_id)
            assert fold.error is not None
            log = str(await jobs.messages(stream_id))
            assert CANARY not in log.replace(asked, "")
            assert KEY not in log
            assert (await jobs.record(stream_id)).error == fold.error
            return fold.error["code"], fold.error["retryable"], fold.text


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "model_invalid_request", False),
        (401, "model_authentication", False),
        (403, "model_permission_denied", False),
        (404, "model_not_found", False),
        (429, "model_rate_limited", True),
        (500, "model_error", True),
        (503, "model_error", True),
    ],
)
async def test_fault_28_an_answer_that_is_an_error(
    redis_url: str, caplog: pytest.LogCaptureFixture, status: int, code: str, retryable: bool
) -> None:
    caplog.set_level(logging.INFO)
    asked = script([CANARY], status=status)
    assert await fails(redis_url, asked) == (code, retryable, "")
    assert "failed" in caplog.text
    assert CANARY not in caplog.text
    assert KEY not in caplog.text


async def test_fault_28_a_connection_cut_in_the_middle_keeps_the_text(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = script(["kept ", "text", CANARY], cut_at=2)
    assert await fails(redis_url, asked) == ("model_connection", True, "kept text")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("holdfast")]
    assert CANARY not in str(ours)


async def test_fault_28_a_chunk_that_is_not_json_keeps_the_text(redis_url: str) -> None:
    code, _, text = await fails(redis_url, script(["kept", "lost"], broken_at=1))
    assert (code, text) == ("model_error", "kept")


async def test_fault_28_a_stall_ends_and_keeps_the_text(redis_url: str) -> None:
    asked = script(["kept", "lost"], gate="never", gate_at=1)
    assert await fails(redis_url, asked, stream_chunk_timeout=1.0) == ("model_timeout", True, "kept")


async def test_fault_28_a_model_that_never_begins_times_out(redis_url: str) -> None:
    code, retryable, _ = await fails(redis_url, script(["x"], gate="never"), timeout=0.2)
    assert (code, retryable) == ("model_timeout", True)


async def test_fault_28_a_server_that_is_not_there(redis_url: str) -> None:
    async with ModelServer() as model:
        gone = model.url
    real_client(gone)
    async with Jobs(redis_url, stage_tries=1) as jobs:
        stream_id = await jobs.stream([{"role": "user", "content": "q"}], chain="real-client")
        await jobs.runner.run(body(stream_id))
        error = (await jobs.fold(stream_id)).error
    assert error is not None
    assert (error["code"], error["retryable"]) == ("model_connection", True)


async def test_fault_28_before_the_first_token_the_client_tries_again_by_itself(redis_url: str) -> None:
    """OpenAI's own client retries twice, and only if a retry may help. So the chain need not retry."""
    async with ModelServer() as model:
        real_client(model.url, max_retries=2)
        async with Jobs(redis_url) as jobs:
            asked = script(["a", "b"], status=503, times=1)
            stream_id = await jobs.stream([{"role": "user", "content": asked}], chain="real-client")
            await jobs.runner.run(body(stream_id))
            assert (await jobs.fold(stream_id)).text == "ab"
        assert len(model.requests) == 2


class ModelRateLimitError(Exception):
    """It has the same name as langchain-core's class. The names of an exception's classes decide its code."""


class Narrower(ModelRateLimitError):
    pass


@pytest.mark.parametrize(
    ("make", "code", "retryable"),
    [
        (lambda: Narrower(CANARY), "model_rate_limited", True),
        (lambda: TimeoutError(CANARY), "timeout", True),
        (lambda: ValueError(CANARY), "chain_error", False),
        (lambda: SystemExit(CANARY), "chain_error", False),
    ],
)
def test_an_exception_has_a_code_of_ours_and_none_of_its_words(
    make: Callable[[], BaseException], code: str, retryable: bool
) -> None:
    data = failure(make()).data
    assert (data["code"], data["retryable"]) == (code, retryable)
    assert CANARY not in str(data)


def test_the_names_of_langchains_errors_are_its_own() -> None:
    """If LangChain renamed a class, its error would silently become `chain_error`."""
    from langchain_core import exceptions
    from langchain_openai.chat_models import _client_utils

    for name in CLASSES.keys() - {"TransportError", "CutOff"}:
        assert any(hasattr(module, name) for module in (exceptions, _client_utils, openai)), name


def test_where_langchain_reads_an_answer_is_where_it_was() -> None:
    """If LangChain renamed a function or reworded a text, its error would silently be `chain_error`."""
    source = Path(base.__file__).read_text()
    assert [name for name in READERS if not re.search(rf"def {name}\b", source)] == []
    source = Path(chat_models.__file__).read_text()
    assert [said for said in NOTHING_CAME if said not in source] == []
