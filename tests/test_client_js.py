"""The JavaScript client: its own tests, its types, and the tests of the Python client on both hosts."""

from __future__ import annotations

import asyncio
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import NOBODY, Host, until
from tests.support.cutter import Cutter
from tests.support.model_server import script
from tests.support.processes import REPOSITORY
from tests.support.programs import NODE, node, run

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

COMPILER = str(NODE / "node_modules" / ".bin" / "tsc")
WORDS = [f"{number} wörd\n" for number in range(40)]
TEXT = "".join(WORDS)


async def client(url: str, **call: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the events that a call of web/client.js yields, and its result or error."""
    *events, end = await node("ask.mjs", url, json.dumps(call))
    return [line["event"] for line in events], end


async def test_the_module_by_itself() -> None:
    told = (await run("node", "--test", "--test-reporter=tap", "client.test.mjs")).decode()
    table = json.loads((REPOSITORY / "tests" / "streams.json").read_text())
    passed = re.findall(r"^ok \d+ - (.*?)(?: # .*)?$", told, re.MULTILINE)
    named = {f"{group}: {name}" for group, rows in table.items() for name in rows}
    assert named < set(passed)
    assert "# skipped 0" in told


async def test_the_types_are_those_of_the_modules(tmp_path: Path) -> None:
    await run(COMPILER, "-p", ".", "--rootDir", "../..", "--emitDeclarationOnly", "--outDir", str(tmp_path))
    for name in ("web/client.d.ts", "npm/react.d.ts"):
        assert (tmp_path / name).read_text() == (REPOSITORY / name).read_text(), "run scripts/vendor"


async def test_a_stream_has_text_stages_usage_and_status(host: Host) -> None:
    url = str(host.http.base_url)
    events, end = await client(url, stream={"user": script(["a", "b"]), "metadata": {"n": 1}})
    result = end["result"]
    assert "".join(event.get("text", "") for event in events) == "ab"
    assert (result["text"], result["finishReason"]) == ("ab", "stop")
    assert result["stages"] == [{"name": "chat", "run": 1, "state": "finished", "text": "ab"}]
    assert result["usage"]["output_tokens"] > 0
    rest, after, status = await asyncio.gather(
        client(url, follow=[result["id"], ""]),
        client(url, follow=[result["id"], result["cursor"]]),
        client(url, status=result["id"]),
    )
    assert rest == (events, {"result": result})
    assert after == ([], {"result": {**result, "finishReason": ""}})  # The stream had already ended.
    assert (status[1]["result"]["metadata"], status[1]["result"]["text"]) == ({"n": 1}, "ab")


async def test_a_failed_stream_is_tried_again(host: Host) -> None:
    url = str(host.http.base_url)
    events, end = await client(url, stream={"user": script(["a"], status=400)})
    first = events[0]["data"]["id"]
    again, told = await client(url, retry=[first, {"from": "chat", "params": {"n": 1}}])
    assert (again[0]["data"]["retries"], again[0]["data"]["from"]) == (first, "chat")
    assert again[0]["data"]["id"] != first
    assert end["error"]["code"] == told["error"]["code"] == "model_invalid_request"
    _, refused = await client(url, retry=[first, {"from": "nothing"}])
    assert refused["error"]["problem"]["field"] == "from"


async def test_through_cuts_at_random_bytes_each_event_comes_once_and_one_job_is_run(host: Host) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    bounds = [0, 0, rng.randrange(1, 200), *(rng.randrange(200, 900) for _ in range(20))]
    before = len(host.model.requests)
    async with Cutter(str(host.http.base_url), bounds) as cutter:
        events, end = await client(cutter.url, stream={"user": script(WORDS, pace=0.005)})
    assert cutter.cuts >= 10
    assert "".join(event["text"] for event in events) == end["result"]["text"] == TEXT
    log = await host.log(f"/stream/{end['result']['id']}")
    assert [event["id"].encode() for event in events] == re.findall(rb"^id: (\S+)$", log, re.MULTILINE)
    assert len(host.model.requests) == before + 1


async def test_a_stream_is_cancelled_and_says_so(host: Host) -> None:
    url, where = str(host.http.base_url), await host.start(["a"], gate=f"client-js-{host.name}")
    stream_id = where.rpartition("/")[2]
    following = asyncio.create_task(client(url, follow=[stream_id, ""]))
    await until(lambda: host.status(where), lambda document: document["status"] == "running")
    assert (await client(url, cancel=stream_id))[1]["result"]["status"] == "cancelled"
    events, end = await following
    assert events[-1]["type"] == "cancelled"
    assert end["error"]["name"] == "StreamCancelled"


async def test_failures_and_refusals_are_told(host: Host) -> None:
    url = str(host.http.base_url)
    failed, refused, nobody = await asyncio.gather(
        client(url, stream={"user": script(["kept", "x"], broken_at=1)}),
        client(url, stream={"user": ""}),
        client(url, follow=[NOBODY, ""]),
    )
    error = failed[1]["error"]
    assert (error["name"], error["text"], bool(error["code"])) == ("StreamFailed", "kept", True)
    again = (await client(url, follow=[failed[0][0]["data"]["id"], failed[0][-1]["id"]]))[1]["error"]
    assert (again["name"], again["text"], again["code"]) == ("StreamFailed", "kept", error["code"])
    error = refused[1]["error"]
    assert (error["name"], error["status"], error["code"]) == ("Refused", 422, "invalid")
    assert error["problem"]["field"] == "user"
    assert (nobody[1]["error"]["status"], nobody[1]["error"]["code"]) == (404, "not_found")
