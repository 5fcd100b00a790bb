"""`python -m gateway ask` as a real process: exact text in spite of cut connections; Ctrl-C cancels."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from gateway.cli.ask import TOY, Shown
from gateway.client import Event
from tests.hosts import NOBODY, Host, uvicorn_host
from tests.support.cutter import Cutter
from tests.support.model_server import ModelServer, script
from tests.support.processes import REPOSITORY
from tests.support.redis_server import RedisServer
from workers.development import local_model

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = [f"{number} wörd\n" for number in range(60)]
LIMIT_SECONDS = 60


@asynccontextmanager
async def asking(url: str, *words: str, command: str = "ask") -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command without the settings of this process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", command, *words),
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "GATEWAY_URL": url},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def printed(process: asyncio.subprocess.Process) -> tuple[str, str, int]:
    """Return what the process printed on stdout and stderr, and its exit code."""
    async with asyncio.timeout(LIMIT_SECONDS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return out.decode(), err.decode(), process.returncode


# This test is the first of its group, so its time includes the start of all hosts.
@pytest.mark.timeout(240)
async def test_it_survives_ten_cuts_and_prints_the_exact_text(hosts: dict[str, Host]) -> None:
    host = hosts["uvicorn"]
    before = len(host.model.requests)
    cutter = Cutter(str(host.http.base_url), [0, *([900] * 11)])
    async with cutter, AsyncExitStack() as stack:
        process = await stack.enter_async_context(asking(cutter.url, script(WORDS)))
        said, told, code = await printed(process)
    assert (said, code) == ("".join(WORDS), 0), told
    assert cutter.cuts >= 10
    assert len(host.model.requests) == before + 1


async def test_ctrl_c_cancels_the_stream_and_the_models_call(model: ModelServer, store: RedisServer) -> None:
    async with uvicorn_host(model, store.url) as host:
        before = len(model.requests)
        question = script(["first\n", "never"], gate="ask-ctrl-c", gate_at=1)
        async with asking(str(host.http.base_url), question) as process:
            assert process.stdout is not None
            async with asyncio.timeout(LIMIT_SECONDS):
                assert await process.stdout.readline() == b"first\n"
            cut = model.cut_answers
            process.send_signal(signal.SIGINT)
            said, told, code = await printed(process)
        assert (said, code) == ("", 130)
        assert "cancelled" in told
        await model.until(requests=before + 1, cut=cut + 1)


async def test_a_refusal_and_nobody_there_are_told_in_a_line(hosts: dict[str, Host]) -> None:
    url = str(hosts["uvicorn"].http.base_url)
    async with asking(url, "q", "--chain", "no-such") as process:
        said, told, code = await printed(process)
    assert (said, code) == ("", 1)
    assert "refused: chain: must be the name of a chain of this gateway: agent, " in " ".join(told.split())
    assert "Traceback" not in told


async def test_what_a_chain_has_come_to_is_printed_where_it_says_no_text(hosts: dict[str, Host]) -> None:
    question = json.dumps({"any": "thing"})
    async with asking(str(hosts["uvicorn"].http.base_url), question, "--chain", "figures") as process:
        said, _, code = await printed(process)
    assert (json.loads(said), code) == ({"total": 42, "of": ["é"]}, 0)


async def test_a_reader_of_its_output_that_goes_away_ends_the_stream_quietly(hosts: dict[str, Host]) -> None:
    host = hosts["uvicorn"]
    cut = host.model.cut_answers
    question = script(["first\n", *["more\n"] * 1000], pace=0.02)
    async with asking(str(host.http.base_url), question) as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"first\n"
        process.stdout._transport.close()  # type: ignore[attr-defined]
        assert process.stderr is not None
        async with asyncio.timeout(LIMIT_SECONDS):
            told = (await process.stderr.read()).decode()
            assert await process.wait() == 141
    assert "Traceback" not in told
    await host.model.until(cut=cut + 1)


async def test_no_gateway_and_no_url_are_told(unused_url: str) -> None:
    async with asking(unused_url, "q") as process:
        assert process.stderr is not None
        async with asyncio.timeout(LIMIT_SECONDS):
            while b"it is tried again" not in (line := await process.stderr.readline()):
                assert line
        process.send_signal(signal.SIGINT)
        said, told, code = await printed(process)
    assert (said, code) == ("", 130)
    assert "not cancelled" in told
    async with asking("localhost:7071", "q") as process:
        said, told, code = await printed(process)
    assert (said, code) == ("", 2)
    assert "begins with http:// or https://" in told


async def test_what_machines_are_told_is_an_object_a_line(hosts: dict[str, Host]) -> None:
    host = hosts["uvicorn"]
    asked = ("-", "--json", "--url", str(host.http.base_url), "--params", '{"tone": "dry"}')
    async with asking("http://localhost:1", *asked) as process:
        out, err = await process.communicate(script(["a", "b"]).encode())
        assert process.returncode == 0, err.decode()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["type"] for line in lines] == ["start", "stage", "message", "message", "stage", "done"]
    stream_id, second = lines[0]["data"]["id"], lines[2]["id"]
    behind = ("--after", second, "--json")
    async with asking(str(host.http.base_url), stream_id, *behind, command="follow") as process:
        said, told, code = await printed(process)
    assert ([json.loads(line) for line in said.splitlines()], code) == (lines[3:], 0), told
    async with asking(str(host.http.base_url), stream_id, command="follow") as process:
        assert (await printed(process))[0] == "ab\n"
    async with asking(str(host.http.base_url), stream_id, "--json", command="cancel") as process:
        said, _, code = await printed(process)
    assert (json.loads(said)["status"], code) == ("done", 0)


async def test_who_only_follows_does_not_end_the_stream_and_cancel_does(hosts: dict[str, Host]) -> None:
    host = hosts["uvicorn"]
    url = str(host.http.base_url)
    where = await host.start(["first\n", "never"], gate="ask-follow", gate_at=1)
    stream_id = where.rpartition("/")[2]
    async with asking(url, stream_id, command="follow") as process:
        assert process.stdout is not None
        async with asyncio.timeout(LIMIT_SECONDS):
            assert await process.stdout.readline() == b"first\n"
        process.send_signal(signal.SIGINT)
        assert (await printed(process))[2] == 130
    assert (await host.status(where))["status"] == "running"
    async with asking(url, stream_id, command="cancel") as process:
        assert await printed(process) == ("cancelled\n", "", 0)
    assert (await host.status(where))["status"] == "cancelled"


async def test_the_chains_and_what_is_wrong_are_told(hosts: dict[str, Host]) -> None:
    url = str(hosts["uvicorn"].http.base_url)
    async with asking(url, command="chains") as process:
        said, _, code = await printed(process)
    assert code == 0
    assert "chat" in said.splitlines()
    async with asking(url, "--json", command="chains") as process:
        told = json.loads((await printed(process))[0])
    assert {one["name"] for one in told["chains"]} == {line.split()[0] for line in said.splitlines()}
    for command in ("follow", "cancel"):
        async with asking(url, NOBODY, command=command) as process:
            said, told, code = await printed(process)
        assert (said, code) == ("", 1)
        assert told.startswith("refused: ")
    async with asking(url, "q", "--params", "[1]") as process:
        assert await printed(process) == ("", "--params: must be a JSON object\n", 2)


@pytest.fixture
def unused_url() -> Iterator[str]:
    """Yield a URL where no server answers. The port stays reserved, so no other process can use it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


async def test_a_terminal_is_sent_no_control_characters_of_a_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = Event("1-aaaa", "message", {"delta_content": "a\x1b[2J\tb\n\x9bc"})
    for terminal, seen in ((True, "a\ufffd[2J\tb\n\ufffdc\n"), (False, "a\x1b[2J\tb\n\x9bc\n")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        with Shown("c") as shown:
            shown.show(hostile)
        assert capsys.readouterr().out == seen


async def test_the_packaged_model_is_called_a_toy_where_its_answer_stands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert TOY == local_model.MODEL
    for deployment, told in ((TOY, True), ("scripted", False)):
        with Shown("chat") as shown:
            shown.show(
                Event("1-a", "message", {"delta_content": "x", "deployment": deployment, "stage": "chat"})
            )
            shown.show(Event("2-a", "done", {"finish_reason": "stop"}))
        assert ("is a toy: set OPENAI_API_KEY" in " ".join(capsys.readouterr().err.split())) is told
