"""The errors for a missing or wrong setting: a few lines, printed soon, that name the remedy."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.cli.starting import command, unserved
from gateway.protocol import sse
from gateway.settings import misspelt
from tests.support.jobs import eventually
from tests.support.model_server import ModelServer, script
from tests.support.processes import REPOSITORY, GatewayProcess
from tests.support.redis_server import RedisServer, free_port

SOON_SECONDS = 60.0  # On a busy machine.
MOST_LINES = 6
NOWHERE = "redis://127.0.0.1:1"
KEYED = {"GATEWAY_AUTH": "keys", "GATEWAY_TOKEN_KEYS": "t" * 32}


async def refused(mode: str, environment: dict[str, str], *, folder: Path | None = None) -> str:
    """Start a process that must refuse to start, and return its log: few lines, soon, and no traceback."""
    if folder is not None:
        environment = {**environment, "PYTHONPATH": str(folder)}
    began = monotonic()
    process = GatewayProcess(mode, environment)
    if mode == "worker":
        await process.__aenter__()
        await process.ended()
    else:
        with pytest.raises(AssertionError, match="the process ended"):
            await process.__aenter__()
    assert await process.stop() != 0
    assert monotonic() - began < SOON_SECONDS
    said = process.log().strip()
    assert "Traceback" not in said
    assert len(said.splitlines()) <= MOST_LINES
    return said


async def logged(process: GatewayProcess, words: str) -> list[str]:
    """Wait until the log has a line with these words, and return all such lines."""
    found: list[str] = []

    async def is_there() -> bool:
        found[:] = [line for line in process.log().splitlines() if words in line]
        return bool(found)

    await eventually(is_there, SOON_SECONDS)
    assert "Traceback" not in process.log()
    return found


async def started(url: str, *words: str) -> asyncio.subprocess.Process:
    """Start `ask` without the settings of this process."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "ask", *words, "--json"),
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "GATEWAY_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Wait for the end of the process. Return its exit code and stderr."""
    async with asyncio.timeout(SOON_SECONDS):
        _, told = await process.communicate()
    assert b"Traceback" not in told
    return process.returncode or 0, told.decode().strip()


async def asked(url: str, *words: str) -> tuple[int, str]:
    """Run `ask` and return its exit code and stderr."""
    return await ended(await started(url, *words))


# The gateway's key


@pytest.mark.slow
async def test_no_key_and_a_wrong_key_are_told_how_one_is_sent(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")
    environment = {"REDIS_URL": redis_url, **KEYED, "GATEWAY_KEYS_FILE": str(tmp_path / "keys")}
    async with GatewayProcess("web", environment) as web, httpx.AsyncClient(base_url=web.url) as http:
        for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}):
            answer = await http.post("/stream", json={"user": "q"}, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["detail"] == (
                "Who asks is not known here: send an API key of this gateway, as "
                "`Authorization: Bearer <key>` or as `X-API-Key: <key>`."
            )
        code, told = await asked(web.url, "q")
    assert code == 1
    assert told.endswith("Your key: GATEWAY_KEY, or --key.")


@pytest.mark.parametrize("line", ["alice", "alice 12ab", "alice " + "g" * 64])
async def test_a_bad_line_in_the_file_of_keys_is_told_by_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "keys").write_text(f"# ours\n{line}\n")
    said = await refused("web", {"REDIS_URL": NOWHERE, **KEYED, "GATEWAY_KEYS_FILE": str(tmp_path / "keys")})
    told = "GATEWAY_KEYS_FILE: keys, line 2: not `name sha256-hex`; `holdfast key NAME` prints such a line"
    assert said.splitlines()[-1] == told


# The model


async def failure(url: str, question: str) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=3 * SOON_SECONDS) as http:
        headers = {"accept": "text/event-stream"}
        answer = await http.post(f"{url}/stream", json={"user": question}, headers=headers)
    event = sse.Decoder().feed(answer.content)[-1].event()
    assert event.type == "failed"
    return dict(event.data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code", "names"),
    [
        (401, "model_authentication", ("OPENAI_API_KEY", "OPENAI_BASE_URL")),
        (403, "model_permission_denied", ("OPENAI_API_KEY", "GATEWAY_MODEL")),
        (404, "model_not_found", ("GATEWAY_MODEL", "OPENAI_BASE_URL")),
    ],
)
async def test_what_the_model_refuses_is_told_by_its_settings(
    status: int, code: str, names: tuple[str, ...]
) -> None:
    async with ModelServer() as model:
        for development in ("yes", "no"):
            environment = {**model.environment(), "GATEWAY_DEVELOPMENT": development}
            async with GatewayProcess("all", environment) as process:
                told = await failure(process.url, script([], status=status))
                [line] = await logged(process, "chain chat failed")
                exit_code, shown = await asked(process.url, script([], status=status))
            assert told["code"] == code
            assert all(name in line for name in names)
            assert line.count("\\n") < MOST_LINES
            assert exit_code == 1
            if development == "yes":
                assert all(name in told["detail"] and name in shown for name in names)
            else:
                assert "detail" not in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "names"),
    [
        (
            {},
            (
                "no model is configured",
                "OPENAI_API_KEY",
                "OPENAI_BASE_URL",
                "AZURE_OPENAI_ENDPOINT",
                "GATEWAY_MODEL",
            ),
        ),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, ("OPENAI_BASE_URL needs OPENAI_API_KEY",)),
        ({"AZURE_OPENAI_ENDPOINT": "https://x.openai.azure.com"}, ("needs OPENAI_API_VERSION",)),
    ],
)
async def test_what_the_model_lacks_is_told_at_the_start(
    redis_url: str, environment: dict[str, str], names: tuple[str, ...]
) -> None:
    async with GatewayProcess("worker", {"REDIS_URL": redis_url, **environment}) as worker:
        [line] = await logged(worker, "the chain chat cannot be made: ")
    assert all(name in line for name in names)
    assert "\\n" not in line


# Settings


async def test_a_port_that_is_taken_is_told_with_the_command_that_takes_the_next() -> None:
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", port)),
        socket.create_server(("127.0.0.1", port + 1)),
    ):
        said = await refused("web", {"REDIS_URL": NOWHERE, "PORT": str(port)})
    first, second = said.splitlines()[-2:]
    assert first == f"cannot listen on 127.0.0.1 port {port}: Address already in use. The next free port:"
    assert re.fullmatch(rf"  PORT={port + 2} \S+ -m gateway web", second)


def test_the_command_is_the_one_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/holdfast"])
    assert (command("all"), command("worker")) == ("holdfast run", "holdfast worker")


async def test_a_module_of_chains_that_is_not_named_is_told(tmp_path: Path) -> None:
    assert unserved("", tmp_path) == ""
    (tmp_path / "chains.py").write_text("")
    assert "set GATEWAY_CHAINS=chains" in unserved("", tmp_path)
    assert unserved("chains", tmp_path) == ""


async def test_a_misspelt_setting_is_told_once_and_the_start_goes_on() -> None:
    environment = {"REDIS_URL": NOWHERE, "GATEWAY_MODLE": "secret-canary", "GATEWAY_ZZZ": "x"}
    async with GatewayProcess("web", environment) as web:
        log = web.log()
    assert log.splitlines()[:2] == [
        "GATEWAY_MODLE is no setting: is GATEWAY_MODEL meant?",
        "GATEWAY_ZZZ is no setting, and is not read",
    ]
    assert log.count("GATEWAY_MODLE") == 1
    assert "secret-canary" not in log


def test_what_is_said_of_misspelt_settings_is_bounded() -> None:
    assert misspelt({"GATEWAY_MODEL": "m", "OTHER": "x"}) == []
    assert len(misspelt({f"GATEWAY_X{number}": "" for number in range(100)})) == 10


# The store


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["web", "worker", "all"])
async def test_a_store_that_is_out_of_reach_is_told_once_at_the_start(mode: str) -> None:
    port = free_port()
    async with GatewayProcess(mode, {"REDIS_URL": f"redis://:canary@127.0.0.1:{port}"}) as process:
        [line] = await logged(process, "REDIS_URL")
        assert line.endswith(
            f"the store cannot be used: REDIS_URL names 127.0.0.1:{port}, and Connection refused. "
            "It is tried again"
        )
    assert "canary" not in process.log()
    assert process.log().count("REDIS_URL") == 1


@pytest.mark.slow
@pytest.mark.parametrize("user", ["", ":wrong@", "nobody:wrong@"])
async def test_a_wrong_password_for_the_store_is_told(user: str) -> None:
    async with RedisServer(tcp=True) as redis:
        async with Redis.from_url(redis.url) as client:
            await client.config_set("requirepass", "right")
        url = f"redis://{user}127.0.0.1:{redis.port}"
        async with GatewayProcess("web", {"REDIS_URL": url}) as web:
            [line] = await logged(web, "REDIS_URL names")
    assert (
        f"REDIS_URL names 127.0.0.1:{redis.port}, and it refuses our credentials: see the user and the"
        in line
    )
    assert "wrong" not in line


async def test_a_store_that_refuses_is_told() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"-ERR max number of clients reached\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, GatewayProcess("web", {"REDIS_URL": f"redis://127.0.0.1:{port}"}) as web:
        [line] = await logged(web, "REDIS_URL names")
    assert f"REDIS_URL names 127.0.0.1:{port}, and " in line


# Workers


@pytest.mark.slow
async def test_no_worker_is_told_by_ready_and_by_ask(redis_url: str) -> None:
    environment = {"REDIS_URL": redis_url, "GATEWAY_QUEUE_NAME": "nobodys-jobs", "OPENAI_API_KEY": "x"}
    async with GatewayProcess("web", environment) as web, httpx.AsyncClient(base_url=web.url) as http:
        answer = await http.get("/ready")
        assert (answer.status_code, answer.json()["workers"]) == (200, {"state": "none_seen"})

        async def is_seen() -> bool:
            return bool((await http.get("/ready")).json()["workers"] == {"state": "seen"})

        process = await started(web.url, "q", "--chain", "demo", "--params", '{"seconds": 0}')
        assert process.stderr is not None
        line = ""
        async with asyncio.timeout(SOON_SECONDS):
            while "no worker takes jobs" not in line:
                line += (await process.stderr.readline()).decode()
        async with GatewayProcess("worker", environment):
            code, _ = await ended(process)
            await eventually(is_seen, SOON_SECONDS)
    assert code == 0
    assert "the job waits: no worker takes jobs there. `holdfast worker` starts one" in " ".join(line.split())


@pytest.mark.slow
async def test_ask_where_nobody_answers_says_what_to_do() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    process = await started(url, "q")
    assert process.stderr is not None
    async with asyncio.timeout(SOON_SECONDS):
        line = (await process.stderr.readline()).decode()
    process.kill()
    await process.wait()
    assert line == (
        f"no word from {url} yet; it is tried again. If no gateway runs there: `holdfast run` starts one, "
        "and --url or GATEWAY_URL names another.\n"
    )


# Chains


async def test_an_unknown_chain_is_refused_with_the_list(redis_url: str) -> None:
    async with (
        GatewayProcess("web", {"REDIS_URL": redis_url}) as web,
        httpx.AsyncClient(base_url=web.url) as http,
    ):
        answer = await http.post("/stream", json={"user": "q", "chain": "chta"})
    told = "chain: must be the name of a chain of this gateway: agent, chat, demo, rag, report"
    assert (answer.status_code, answer.json()["detail"]) == (422, told)


async def test_an_unknown_default_chain_is_told_with_the_list() -> None:
    said = await refused("web", {"REDIS_URL": NOWHERE, "GATEWAY_DEFAULT_CHAIN": "chta"})
    assert said == "GATEWAY_DEFAULT_CHAIN: there is no chain chta; there are agent, chat, demo, rag, report"


@pytest.mark.parametrize("mode", ["web", "worker"])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            None,
            "GATEWAY_CHAINS: there is no module own_mistake: start in the folder that has own_mistake.py, or",
        ),
        (
            "import no_such_package.part\n",
            "it needs the package no_such_package, which is not installed ({file}:1)",
        ),
        ("import no_such_package\n", "python -m pip install no_such_package"),
        ("x = 1\ndef trip(:\n    pass\n", "cannot be imported: invalid syntax ({file}:2)\n  def trip(:\n"),
        (
            'import os\nos.environ["NO_SUCH_ONE"]\n',
            "the environment variable NO_SUCH_ONE is not set ({file}:2",
        ),
        ("x = {}\nx[1]\n", "cannot be imported: KeyError: 1\n  {file}:2 in <module>: x[1]"),
    ],
    ids=["missing", "lacks a part", "lacks a package", "syntax", "variable", "raises"],
)
async def test_a_module_that_cannot_be_imported_is_told_in_a_few_lines(
    tmp_path: Path, mode: str, text: str | None, told: str
) -> None:
    file = tmp_path / "own_mistake.py"
    if text is not None:
        file.write_text(text)
    environment = {"REDIS_URL": NOWHERE, "GATEWAY_CHAINS": "own_mistake"}
    said = await refused(mode, environment, folder=tmp_path)
    assert told.format(file=file) in said
    assert "GATEWAY_CHAINS: " in said


async def test_a_module_without_a_chain_is_told_and_the_start_goes_on(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "no_chain.py").write_text("x = 1\n")
    (tmp_path / "some_package").mkdir()
    (tmp_path / "some_package" / "__init__.py").write_text("from some_package import trip\n")
    chain = "from holdfast_gateway import chain\n\n\n@chain('trip')\ndef trip(settings):\n    return str\n"
    (tmp_path / "some_package" / "trip.py").write_text(chain)
    environment = {
        "REDIS_URL": redis_url,
        "GATEWAY_CHAINS": "no_chain,some_package",
        "PYTHONPATH": str(tmp_path),
    }
    async with GatewayProcess("web", environment) as web:
        [line] = await logged(web, "has no chain")
        assert "some_package" not in web.log()
    assert line.endswith(
        'GATEWAY_CHAINS: the module no_chain has no chain: mark a factory with @chain("name"), from '
        "holdfast_gateway import chain"
    )
