"""What callers have taken and what they may, on both hosts: GET /usage, budgets, plans, and the command."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cli.usage import usage as command
from gateway.settings import Settings
from gateway.streams.service import Gateway
from tests.callers import ALICE, BOB, METRICS_KEY, Guarded, by_key, flooding, plans_of
from tests.hosts import EVENTS, until
from tests.support.model_server import ModelServer, script

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")
WORDS = ["a", "b", "c"]  # the model says that it took 7 tokens, and gave one for each of these


async def usage(guarded: Guarded, who: str) -> dict[str, Any]:
    answer = await guarded.http.get("/usage", headers=by_key(who))
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), answer.text
    told: dict[str, Any] = answer.json()
    return told


async def taken(guarded: Guarded, who: str) -> tuple[int, int]:
    day = (await usage(guarded, who))["day"]
    assert day["total_tokens"] == day["input_tokens"] + day["output_tokens"]
    return day["input_tokens"], day["output_tokens"]


async def post(guarded: Guarded, who: str, path: str = "/stream", **body: Any) -> httpx.Response:
    key = {"idempotency-key": body.pop("key")} if "key" in body else {}
    body = body or {"user": script(WORDS)}
    return await guarded.http.post(path, json=body, headers={**by_key(who), **key})


async def until_taken(guarded: Guarded, who: str, tokens: tuple[int, int]) -> None:
    async with asyncio.timeout(10):
        await until(lambda: taken(guarded, who), lambda found: found == tokens)


async def test_a_streams_tokens_are_counted_once_for_its_owner(guarded: Guarded) -> None:
    before, other = await taken(guarded, ALICE), await taken(guarded, BOB)
    await guarded.finished(ALICE, WORDS)
    await until_taken(guarded, ALICE, (before[0] + 7, before[1] + 3))
    told = await usage(guarded, ALICE)
    assert set(told) == {"day", "minute"}
    assert set(told["day"]) == {"input_tokens", "output_tokens", "total_tokens", "limit"}
    assert told["day"]["limit"] is None
    assert told["minute"]["total_tokens"] >= 10
    assert await taken(guarded, BOB) == other
    metrics = await guarded.http.get("/metrics", headers=by_key(METRICS_KEY))
    assert 'holdfast_tokens_total{chain="chat",kind="input"}' in metrics.text
    assert 'holdfast_tokens_total{chain="chat",kind="output"}' in metrics.text
    assert "owner=key:alice" in guarded.log()


async def test_pieces_of_text_count_where_the_model_has_told_nothing(
    guarded: Guarded, model: ModelServer
) -> None:
    before = await taken(guarded, ALICE)
    gate = f"usage {uuid.uuid4()}"
    where = await guarded.start(ALICE, [*WORDS, "never"], gate=gate, gate_at=3)
    async with guarded.http.stream("GET", where, headers={**EVENTS, **by_key(ALICE)}) as reading:
        raw = b""
        async for chunk in reading.aiter_bytes():
            raw += chunk
            if raw.count(b'"delta_content"') == 3:
                break
    await guarded.http.delete(where, headers=by_key(ALICE))
    await until_taken(guarded, ALICE, (before[0], before[1] + 3))
    model.open_gate(gate)


@pytest.mark.parametrize("plan", ["day", "minute"])
async def test_over_the_budget_a_post_is_refused_and_a_known_key_still_answers(
    guarded: Guarded, plan: str
) -> None:
    who, key = flooding(plan, guarded.name), str(uuid.uuid4())
    first = await post(guarded, who, key=key, user=script(WORDS))
    assert first.status_code == 202, first.text
    await guarded.http.get(first.headers["location"], headers={**EVENTS, **by_key(who)})
    await until_taken(guarded, who, (7, 3))
    limit = (await usage(guarded, who))[plan]["limit"]
    assert limit == 5
    refused = await post(guarded, who)
    assert (refused.status_code, refused.json()["code"]) == (429, "over_quota")
    most = 86_400 if plan == "day" else 60
    assert 1 <= int(refused.headers["retry-after"]) <= most
    again = await post(guarded, who, key=key, user=script(WORDS))
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    for path, body in (
        ("/v1/chat/completions", {"model": "chat", "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/responses", {"model": "chat", "input": "x"}),
        ("/agui/chat", {"threadId": "t", "runId": "r", "messages": [{"role": "user", "content": "x"}]}),
        ("/api/http_trigger", {"user": "x"}),
    ):
        foreign = await post(guarded, who, path, **body)
        assert foreign.status_code == 429, (path, foreign.text)
        assert 1 <= int(foreign.headers["retry-after"]) <= most
    assert (await post(guarded, BOB)).status_code == 202


async def test_plans_are_read_again_and_a_wrong_file_changes_nothing(
    guarded: Guarded, plans_file: Path
) -> None:
    who, owner = flooding("reloaded", guarded.name), f"key:reloaded-{guarded.name}"
    assert (await usage(guarded, who))["day"]["limit"] is None

    async def limit() -> int | None:
        found: int | None = (await usage(guarded, who))["day"]["limit"]
        return found

    def write(text: str) -> None:
        plans_file.write_text(text)

    try:
        plans = {
            "day": {"tokens_per_day": 5},
            "minute": {"tokens_per_minute": 5},
            "one": {"tokens_per_day": 1},
        }
        write(plans_of(plans=plans, owners={owner: "one"}))
        await until(limit, lambda found: found == 1)
        write("{")
        await until(lambda: _log(guarded), lambda log: "the file of plans is wrong: it is not JSON" in log)
        assert await limit() == 1
        assert (await post(guarded, who)).status_code == 202
    finally:
        write(plans_of())
    await until(limit, lambda found: found is None)


async def _log(guarded: Guarded) -> str:
    await usage(guarded, BOB)
    return guarded.log()


async def test_the_command_has_a_line_for_each_owner(
    guarded: Guarded, capsys: pytest.CaptureFixture[str]
) -> None:
    before = await taken(guarded, BOB)
    await guarded.finished(BOB, WORDS)
    await until(lambda: taken(guarded, BOB), lambda found: found[0] >= before[0] + 7)
    settings = Settings(redis_url=guarded.store_url)
    assert await command(Gateway(settings, {"c": ("c",)}), as_json=True) == 0
    [bob] = [one for one in json.loads(capsys.readouterr().out)["owners"] if one["owner"] == "key:bob"]
    tokens = await taken(guarded, BOB)
    assert (bob["day"]["input_tokens"], bob["day"]["output_tokens"]) == tokens
    assert await command(Gateway(settings, {"c": ("c",)}), as_json=False) == 0
    [line] = [one for one in capsys.readouterr().out.splitlines() if one.startswith("key:bob ")]
    assert line.split()[1:4] == [str(tokens[0]), str(tokens[1]), str(sum(tokens))]


async def test_who_is_not_known_is_refused(guarded: Guarded) -> None:
    assert (await guarded.http.get("/usage")).status_code == 401
    refused = await guarded.http.get("/usage", headers={**by_key(ALICE), "accept": "text/plain"})
    assert refused.status_code == 406
