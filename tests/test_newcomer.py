"""Three mistakes in a first chain. The output of `make run` alone is enough to find each mistake."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from gateway.protocol import sse
from tests.support.processes import GatewayProcess

MODULE = """
import os

from workers.chains.registry import chain


@chain("lacks_variable")
def lacks_variable(settings):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(api_key=os.environ["HOLDFAST_NO_SUCH_VARIABLE"])


@chain("forgets")
def forgets(settings):
    from langchain_core.runnables import RunnableLambda

    RunnableLambda(str.upper)


@chain("misspells")
def misspells(settings):
    from langchain_core.language_models import FakeListChatModel
    from langchain_core.prompts import ChatPromptTemplate

    return ChatPromptTemplate.from_template("Say {topic} in {langauge}.") | FakeListChatModel(responses=["x"])
"""


async def failed(url: str, chain: str) -> dict[str, object]:
    body = {"chain": chain, "input": {"topic": "t", "language": "l"}}
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(f"{url}/stream", json=body, headers={"accept": "text/event-stream"})
    event = sse.Decoder().feed(answer.content)[-1].event()
    assert event.type == "failed"
    data: dict[str, object] = event.data
    return data


@pytest.mark.slow
async def test_a_newcomers_mistakes_are_named_on_the_terminal_and_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / "mistakes.py").write_text(MODULE)
    environment = {"PYTHONPATH": str(tmp_path), "GATEWAY_CHAINS": "mistakes", "OPENAI_API_KEY": "x"}
    environment["GATEWAY_DEVELOPMENT"] = ""
    async with GatewayProcess("all", environment) as gateway:
        told = [await failed(gateway.url, name) for name in ("lacks_variable", "forgets", "misspells")]
        log = gateway.log()
        [chains] = [line for line in gateway.lines if line.startswith("Chains: ")]
    assert {"forgets", "misspells"} < set(chains.partition(".")[0].replace(",", "").split())
    variable = f"the environment variable HOLDFAST_NO_SUCH_VARIABLE is not set ({tmp_path}/mistakes.py:11"
    forgotten = f"the factory of the chain forgets ({tmp_path}/mistakes.py:14) gives None: return the chain"
    for wanted, data in zip((variable, forgotten, "missing variables {'langauge'}"), told, strict=True):
        assert wanted in log
        assert wanted in str(data["detail"])
        assert data["code"] == "chain_error"
    # All frames of this failure are LangChain's, so the reader is told where the chain is made.
    assert f"the chain is made at {tmp_path}/mistakes.py:" in str(told[2]["detail"])
    # These two lines are logged at the start, before any request.
    assert f"the chain lacks_variable cannot be made: {variable}" in log
    assert f"the chain forgets cannot be made: {forgotten}" in log


@pytest.mark.slow
async def test_elsewhere_than_in_development_an_exceptions_text_is_told_to_nobody(
    redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "mistakes.py").write_text(MODULE)
    environment = {
        "PYTHONPATH": str(tmp_path),
        "GATEWAY_CHAINS": "mistakes",
        "OPENAI_API_KEY": "x",
        "REDIS_URL": redis_url,
        "GATEWAY_DEVELOPMENT": "no",
    }
    async with GatewayProcess("all", environment) as gateway:
        data = await failed(gateway.url, "misspells")
        log = gateway.log()
    assert "detail" not in data
    assert "langauge" not in log
    assert "chain misspells failed: " in log
