"""`inspect` and `ls`: what they print for people and for machines, and what they hide; also on a cluster."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway import protocol
from gateway.cli import commands
from gateway.cli.parser import STATES
from gateway.ops import listing
from gateway.protocol import Event, EventType
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.record import WAITING
from gateway.streams.service import Gateway
from gateway.streams.start import Start
from tests.hosts import NOBODY
from tests.support.following import Stream, connected, text
from tests.support.jobs import Jobs, body
from tests.support.processes import REPOSITORY
from tests.support.redis_cluster import RedisCluster

CANARY = "canary-51c7"
SAYS = [CANARY, "\x1b[2J", "\r\n", "b"]


async def telling(_: Any) -> AsyncIterator[str]:
    for delta in SAYS:
        yield delta


async def printed(url: str, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Run a command and return what it prints. The output is on stderr if the exit code is not 0."""
    given = commands.parser().parse_args(arguments)
    assert await commands.look(Settings(redis_url=url), given) == code
    said = capsys.readouterr()
    return said.err if code else said.out


async def made(jobs: Jobs, owner: str = "key:alice") -> str:
    start = Start("under-test", {"input": CANARY}, {"p": CANARY}, metadata={"m": CANARY})
    return (await jobs.gateway.create(start, owner=owner)).id


async def test_inspect_tells_a_streams_state_and_its_events_without_content(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Jobs(redis_url, telling) as jobs:
        stream = await made(jobs)
        for form in ([], ["--json"]):
            queued = await printed(redis_url, capsys, "inspect", stream, *form)
            assert CANARY not in queued
        assert json.loads(queued)["status"] == "queued"
        await jobs.runner.run(body(stream))
        said = await printed(redis_url, capsys, "inspect", stream)
        told = json.loads(await printed(redis_url, capsys, "inspect", stream, "--json"))
    assert CANARY not in said + json.dumps(told)
    assert (told["status"], told["owner"], told["attempt"]) == ("done", "key:alice", 1)
    assert [(entry["type"], entry["events"]) for entry in told["timeline"]] == [
        ("start", 1),
        ("stage", 1),
        ("text", 4),
        ("stage", 1),
        ("done", 1),
    ]
    assert sum(entry["bytes"] for entry in told["timeline"]) == told["log_bytes"]
    assert told["timeline"][-1]["last_id"] == told["last_event_id"]
    head, *rows = said.partition("\n\n")[2].splitlines()
    assert head.split() == ["id", "type", "events", "bytes", "writer"]
    assert [row.split()[0] for row in rows] == [entry["id"] for entry in told["timeline"]]


async def test_content_is_shown_when_asked_for_in_one_line_each(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Jobs(redis_url, telling) as jobs:
        stream = await made(jobs)
        asked = json.loads(await printed(redis_url, capsys, "inspect", stream, "--content", "--json"))
        assert asked["input"] == {"input": CANARY}
        assert (asked["params"], asked["metadata"]) == ({"p": CANARY}, {"m": CANARY})
        await jobs.runner.run(body(stream))
        said = await printed(redis_url, capsys, "inspect", stream, "--content")
        told = json.loads(await printed(redis_url, capsys, "inspect", stream, "--content", "--json"))
    assert told["timeline"][2]["content"] == "".join(SAYS)
    assert all(character.isprintable() or character == "\n" for character in said)
    [row] = [line for line in said.splitlines() if " text " in line]
    assert row.endswith("content=" + CANARY + "\\x1b[2J\\r\\nb")


async def test_what_tools_chains_and_resets_say_is_content(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = {"name": "search", "call_id": CANARY, "stage": "answer", "state": "started", "input": CANARY}
    custom = {"name": "progress", "stage": "answer", "data": CANARY}
    async with connected(redis_url) as redis:
        stream = await Stream.create(Log(redis))
        await stream.write(text(CANARY), Event(EventType.TOOL, tool), Event(EventType.CUSTOM, custom))
        await stream.take_over()
        reset = protocol.reset(attempt=2, stage_name="answer", discard_after="1-aaaa", reason="differs")
        await stream.write(reset, text("again"))
        await stream.write(protocol.failed("chain_error", CANARY, retryable=False))
    said = await printed(redis_url, capsys, "inspect", stream.id)
    told = json.loads(await printed(redis_url, capsys, "inspect", stream.id, "--json"))
    assert CANARY not in said + json.dumps(told)
    timeline = {entry["type"]: entry for entry in told["timeline"]}
    assert (timeline["tool"]["name"], timeline["custom"]["name"]) == ("search", "progress")
    assert (timeline["reset"]["attempt"], timeline["reset"]["reason"]) == (2, "differs")
    assert timeline["failed"]["code"] == "chain_error"
    assert timeline["text"]["writer"] == timeline["failed"]["writer"] != timeline["tool"]["writer"]


async def test_a_lease_and_an_expired_log_are_told(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with connected(redis_url) as redis:
        log = Log(redis)
        stream = await Stream.create(log)
        told = json.loads(await printed(redis_url, capsys, "inspect", stream.id, "--json"))
        assert 0 < told["lease_left_ms"] <= 60_000
        await stream.end()
        await redis.call("DEL", log.keys(stream.id)[1])
    said = await printed(redis_url, capsys, "inspect", stream.id)
    assert "past its retention" in said


@pytest.mark.parametrize("stream", [NOBODY, "no id at all", "../x", ""])
async def test_a_stream_that_is_none_is_told_so(
    redis_url: str, capsys: pytest.CaptureFixture[str], stream: str
) -> None:
    assert await printed(redis_url, capsys, "inspect", stream, code=1) == "there is no such stream\n"


@pytest.mark.parametrize("command", [["ls"], ["inspect", NOBODY]])
async def test_a_store_out_of_reach_is_told_in_one_sentence(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    said = await printed("unix:///nowhere.sock", capsys, *command, code=1)
    assert said == "the store is out of reach\n"


async def some(gateway: Gateway, owners: str) -> list[str]:
    """Create a queued stream for each letter, which is the name of its owner. Return the ids."""
    start = Start("under-test", {"input": 1}, {})
    return [(await gateway.create(start, owner=owner)).id for owner in owners]


async def test_ls_shows_open_streams_first_and_narrows(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Jobs(redis_url, telling) as jobs:
        ids = await some(jobs.gateway, "abab")
        await jobs.runner.run(body(ids[0]))
        await jobs.gateway.cancel(ids[1], "b")

        async def listed(*arguments: str) -> list[str]:
            told = json.loads(await printed(redis_url, capsys, "ls", "--json", *arguments))
            assert told["complete"] is ("--limit" not in arguments)
            return [stream["id"] for stream in told["streams"]]

        everything = await listed()
        assert set(everything[:2]) == set(ids[2:])
        assert set(everything[2:]) == set(ids[:2])
        assert set(await listed("--owner", "a")) == {ids[0], ids[2]}
        assert await listed("--owner", "nobody") == []
        assert await listed("--status", "cancelled") == [ids[1]]
        assert set(await listed("--status", "queued")) == set(ids[2:])
        assert await listed("--status", "done", "--owner", "b") == []
        assert set(await listed("--limit", "1")) < set(ids[2:])
        assert len(await listed("--limit", "3")) == 3
        said = await printed(redis_url, capsys, "ls", "--limit", "2")
    head, *rows, more = said.splitlines()
    assert head.split()[:3] == ["id", "status", "owner"]
    assert {row.split()[0] for row in rows} == set(ids[2:])
    assert more.startswith("There may be more")


async def test_ls_stops_at_its_bound_and_says_so(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SCAN_COUNT", 10)
    monkeypatch.setattr(listing, "MOST_SCANNED", 20)
    async with connected(redis_url) as redis:
        await redis.call_all([("SET", f"other:{number}", 1, "EX", 60) for number in range(1000)])
        await redis.call("CONFIG", "RESETSTAT")
        told = json.loads(await printed(redis_url, capsys, "ls", "--json"))
        stats = (await redis.call("INFO", "commandstats")).decode()
    assert told == {"streams": [], "complete": False}
    assert "cmdstat_scan:calls=2," in stats


async def test_ls_and_inspect_reach_every_node_of_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    async with RedisCluster() as cluster:
        gateway = Gateway(Settings(redis_url=cluster.url), {"under-test": ("under-test",)})
        ids = await some(gateway, "ab" * 6)
        ended = ids[:6]
        for stream in ended:
            await gateway.parts.log.cancel(stream, "beef")
        told = json.loads(await printed(cluster.url, capsys, "ls", "--json"))
        assert told["complete"]
        assert {stream["id"] for stream in told["streams"]} == set(ids)
        assert len({cluster.owner(Log.keys(stream)[0]) for stream in ids}) > 1
        for stream in ids:
            assert stream in await printed(cluster.url, capsys, "inspect", stream)
        gone = cluster.owner(Log.keys(ended[0])[0])
        await gone.kill()
        other = next(node for node in cluster.nodes if node is not gone)
        told = json.loads(await printed(other.url, capsys, "ls", "--json"))
        assert not told["complete"]
        left = {stream for stream in ids if cluster.owner(Log.keys(stream)[0]) is not gone}
        assert {stream["id"] for stream in told["streams"]} == left
        await gateway.close()


async def ran(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run the gateway's command in its own process. Return exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments),
        cwd=REPOSITORY,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_command_line_lists_all_that_there_is_to_run(redis_url: str) -> None:
    (code, said, _), (ls_code, listed, told), (no_code, _, refused) = await asyncio.gather(
        ran("--help"),
        ran("ls", REDIS_URL=redis_url, GATEWAY_LOG_LEVEL="debug"),
        ran("ls", GATEWAY_STORE_DIR="/nowhere"),
    )
    assert code == ls_code == 0
    for command in ("run (all)", "new", "web", "worker", "key", "inspect", "ls"):
        assert any(line.startswith(f"    {command}") for line in said.splitlines())  # the rest may be wrapped
    assert listed.startswith("id ")
    assert "Traceback" not in told
    assert no_code == 2
    assert refused.splitlines()[-1].endswith("REDIS_URL must be set: it names the store to look into")


async def surrogate(_: Any) -> AsyncIterator[str]:
    yield "\ud800"


async def test_a_lone_surrogate_is_shown_as_an_escape(redis_url: str) -> None:
    async with Jobs(redis_url, surrogate) as jobs:
        stream = await made(jobs)
        await jobs.runner.run(body(stream))
    code, said, told = await ran("inspect", stream, "--content", REDIS_URL=redis_url)
    assert (code, told) == (0, "")
    assert "\\ud800" in said


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "all"),
        (["all"], "all"),
        (["run"], "all"),
        (["web"], "web"),
        (["worker"], "worker"),
        (["key", "b"], "key"),
    ],
)
def test_what_could_be_run_before_still_can(arguments: list[str], command: str) -> None:
    assert commands.parser().parse_args(arguments).command == command


@pytest.mark.parametrize(
    "arguments", [["web", "x"], ["key"], ["nothing"], ["ls", "--limit", "x"], ["inspect"]]
)
def test_what_is_not_a_command_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        commands.parser().parse_args(arguments)
    assert caught.value.code == 2
    assert "python -m gateway" in capsys.readouterr().err


async def test_help_has_examples_and_costs_little() -> None:
    """The command needs less than 0.3 s of processor time.

    The command line is parsed before the rest is imported.
    """
    measure = (
        "import resource, subprocess, sys\n"
        "command = [sys.executable, '-m', 'gateway', '--help']\n"
        "said = subprocess.run(command, capture_output=True, check=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime)\n"
        "print(said.stdout.decode())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", measure), cwd=REPOSITORY, env={}, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    seconds, _, said = out.decode().partition("\n")
    assert "\nexamples:\n" in said
    assert 'ask "What holds?"' in said
    assert float(seconds) < 0.3


async def test_a_key_is_made_for_machines_too() -> None:
    code, out, _ = await ran("key", "alice", "--json")
    made = json.loads(out)
    assert (code, sorted(made)) == (0, ["key", "line"])
    assert made["line"] == f"alice {hashlib.sha256(made['key'].encode()).hexdigest()}"


def test_the_states_that_ls_takes_are_those_that_there_are() -> None:
    assert set(STATES) == {*(status.value for status in protocol.Status), WAITING}
