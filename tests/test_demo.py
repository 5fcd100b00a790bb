"""The scripted chain `demo`.

Checked: what it shows, how fast, and that it survives the kills that its text invites to.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

from gateway.client import Gateway, Refused
from gateway.settings import Settings
from holdfast_gateway.testing import run
from tests.support.processes import GatewayProcess
from workers.chains.demo import PASSAGES, SECTIONS

ROOT = Path(__file__).resolve().parents[1]
SILENT_SECONDS = 3.0
QUICK = {"seconds": 0.2}


def shown(events: Sequence[Any]) -> str:
    """Return the text of all stages."""
    return "".join(event.data["delta_content"] for event in events if event.type == "message")


async def test_it_shows_stages_a_tool_sources_a_table_and_code_and_says_that_it_is_scripted() -> None:
    result = await run("demo", user="Who are\nyou, `really`?", params=QUICK)
    text = shown(result.events)
    assert text.startswith("**This answer is scripted.** No model wrote it")
    assert "`Who are you, 'really'?`" in text
    assert {event.data["deployment"] for event in result.events if event.type == "message"} == {"scripted"}
    names = [(stage.name, stage.run) for stage in result.stages]
    assert names == [
        ("plan", 1),
        ("search", 1),
        ("work_out", 1),
        *(("sections", n + 1) for n in range(len(SECTIONS))),
    ]
    tools = [event.data for event in result.events if event.type == "tool"]
    assert [(tool["name"], tool["state"]) for tool in tools] == [
        ("calculator", "started"),
        ("calculator", "finished"),
    ]
    assert f"about {tools[1]['output']} pieces of text" in text
    assert f"`{tools[0]['input']['expression']} = {tools[1]['output']}`" in text
    [sources] = [event.data["data"] for event in result.events if event.data.get("name") == "sources"]
    assert [one["source"] for one in sources["documents"]] == [source for source, _, _ in PASSAGES]
    assert all((ROOT / one["source"]).is_file() for one in sources["documents"])
    assert re.search(r"^\| what fails .*\n\|[-|]+\|\n(\| .*\n)+", text, re.MULTILINE)
    assert re.search(
        r"^```sh\ncurl -N http://127\.0\.0\.1:7071/stream/[\w-]{24} .*\n```$", text, re.MULTILINE
    )
    assert "(15 s)" in text
    assert (result.error, result.finish_reason) == (None, "stop")


async def test_it_says_exactly_how_a_real_model_is_had() -> None:
    text = shown((await run("demo", user="q", params={"seconds": 0})).events)
    [lines] = re.findall(r"^```sh\n(export .*\n)```$", text, re.MULTILINE)
    environment = dict([lines.removeprefix("export ").strip().split("=")])
    assert environment == {"OPENAI_API_KEY": "…"}
    assert Settings.from_env(environment).default_chain == "chat"  # so nobody has to choose it
    assert "choose" not in text.split("You asked:")[0]
    assert "toy" in text.split("You asked:")[0]  # which `chat` is until then


async def test_a_long_question_is_cut_and_the_pace_is_bounded() -> None:
    result = await run("demo", messages=[{"role": "user", "content": "x" * 300}], params={"seconds": 0})
    assert "`" + "x" * 200 + "…`" in shown(result.events)
    with pytest.raises(Refused, match=r"params\.seconds"):
        await run("demo", user="q", params={"seconds": 1000})


@pytest.mark.slow
async def test_make_run_without_a_model_answers_with_it_at_a_pace_that_people_can_follow() -> None:
    async with (
        GatewayProcess("all", {}) as process,
        httpx.AsyncClient(base_url=process.url, timeout=60) as http,
        Gateway(process.url) as gateway,
    ):
        told = (await http.get("/chains")).json()
        assert told["default"] == "demo"
        assert {"chat", "demo"} <= {chain["name"] for chain in told["chains"]}
        described = (await http.get("/openapi.json")).json()["components"]["schemas"]
        assert described["StartUser"]["properties"]["chain"]["default"] == "demo"
        stream, heard = gateway.stream(user="What holds?"), [monotonic()]
        kinds = []
        async for event in stream:
            heard.append(monotonic())
            kinds.append(event.type)
            if event.type == "start":
                assert event.data["chain"] == "demo"
    assert kinds[-1] == "done"
    assert 20 <= heard[-1] - heard[0] <= 30
    assert max(after - before for before, after in pairwise(heard)) <= SILENT_SECONDS


@pytest.mark.slow
async def test_a_kill_in_any_of_its_stages_shows_in_no_event(tmp_path: Path) -> None:
    """Each process is killed by SIGKILL in the middle of a different stage. No `reset` event follows."""
    environment = {"GATEWAY_STORE_DIR": str(tmp_path / "store"), "GATEWAY_LEASE_SECONDS": "1"}
    environment["OPENAI_API_KEY"] = "x"  # This stops every process from loading the packaged model.
    words = ["half a minute", "They wait", "What happens"]
    events: list[Any] = []
    async with asyncio.timeout(60):
        for word in [*words, None]:
            async with GatewayProcess("all", environment) as process, Gateway(process.url) as gateway:
                if not events:
                    stream = gateway.stream(user="What holds?", chain="demo", params={"seconds": 6})
                else:
                    stream = gateway.follow(events[0].data["id"], after=events[-1].id)
                async for event in stream:
                    events.append(event)
                    if word is not None and word in shown(events):
                        await process.kill()
                        break
    again = await run("demo", user="What holds?", params=QUICK)
    own = re.compile(r"/stream/[\w-]{24}")
    assert own.sub("", shown(events)) == own.sub("", shown(again.events)).replace("(15 s)", "(1 s)")
    kinds = [event.type for event in events]
    assert (kinds.count("start"), kinds.count("reset"), kinds[-1]) == (1, 0, "done")
    assert events[-1].data["attempts"] == len(words) + 1
    tools = [event.data["state"] for event in events if event.type == "tool"]
    assert tools == ["started", "finished"]


def test_with_a_configured_model_a_request_that_names_no_chain_gets_chat() -> None:
    assert Settings.from_env({}).default_chain == "chat"
    assert (
        Settings.from_env({"GATEWAY_DEFAULT_CHAIN": "report"}, default_chain="demo").default_chain == "report"
    )
