"""`python -m gateway doctor` names the wrong setting, within a bounded time, and prints no secret."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gateway.cli import doctor as doctor_module
from gateway.cli.doctor import doctor
from gateway.process import _chains
from tests.support.processes import REPOSITORY
from tests.support.redis_server import RedisServer
from workers.chains.registry import forget

SECRET = "hf-secret-word"
CHAINS = {
    "right": "from holdfast_gateway import chain\n\n"
    "@chain('right')\ndef right(_):\n    return lambda given: 'x'\n",
    "lacking": "import no_such_package\n",
    "failing": f"raise RuntimeError('{SECRET}')\n",
    "leaving": "import sys\nsys.exit(3)\n",
    "unmade": "from holdfast_gateway import chain\n\n@chain('unmade')\ndef unmade(_):\n"
    f"    raise RuntimeError('{SECRET}')\n",
}
Told = tuple[int, dict[str, tuple[bool, str]]]


class Server:
    """A model server that answers every request with `status`. If `status` is None, it never answers."""

    def __init__(self) -> None:
        self.status: int | None = 200
        self.heads: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            if self.status is None:
                await reader.read()
            writer.write(
                f"HTTP/1.1 {self.status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
            await writer.drain()
        finally:
            writer.close()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as listening:
        made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        yield made


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Provide modules with chains of an author. This process forgets them after the test."""
    names = [f"doctor_{name}" for name in CHAINS]
    for name, text in zip(names, CHAINS.values(), strict=True):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    forget(names)
    for name in names:
        sys.modules.pop(name, None)


async def asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **environment: str
) -> Told:
    """Return the exit code and, for each part, whether it is right and the text that was printed."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code = await doctor(_chains)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert SECRET not in printed.out
    assert "Traceback" not in printed.out
    lines = [line.split(None, 2) for line in printed.out.splitlines()]
    return code, {part: (word == "ok", told) for word, part, told in lines}


async def test_all_is_right(
    redis_url: str, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = await asked(
        *(monkeypatch, capsys),
        REDIS_URL=redis_url,
        OPENAI_BASE_URL=server.url,
        OPENAI_API_KEY=SECRET,
        GATEWAY_CHAINS="doctor_right",
    )
    assert code == 0, told
    assert set(told) == {"settings", "chains", "store", "queue", "model"}
    assert all(good for good, _ in told.values())
    assert server.heads[0].startswith(b"GET /v1/models ")


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("GATEWAY_LEASE_SECONDS", SECRET, "settings"),
        ("GATEWAY_WEBHOOK_KEYS", SECRET, "settings"),
        ("GATEWAY_WEBHOOK_RETRY_SECONDS", "1 x", "settings"),
        ("GATEWAY_CHAINS", "doctor_no_such", "chains"),
        ("GATEWAY_CHAINS", "doctor_right,doctor_lacking", "chains"),
        ("GATEWAY_CHAINS", "doctor_failing", "chains"),
        ("GATEWAY_CHAINS", "doctor_leaving", "chains"),
        ("GATEWAY_CHAINS", "doctor_unmade", "chains"),
        ("REDIS_URL", f"redis://user:{SECRET}@127.0.0.1:1/0", "store"),
        ("REDIS_URL", f"redis://:{SECRET}@no-such-host.invalid:6379", "store"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:1/v1", "model"),
        ("OPENAI_BASE_URL", "no url", "model"),
    ],
)
async def test_what_is_wrong_is_named_and_the_rest_is_right(
    name: str,
    value: str,
    part: str,
    redis_url: str,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right = {"REDIS_URL": redis_url, "OPENAI_BASE_URL": server.url}
    code, told = await asked(monkeypatch, capsys, **{**right, name: value})
    assert code == 1
    assert [one for one, (good, _) in told.items() if not good] == [part]
    assert name in told[part][1]
    if name == "GATEWAY_CHAINS":
        module = value.rpartition(",")[2].removeprefix("doctor_")
        assert module in told[part][1]


@pytest.mark.parametrize(
    ("status", "setting"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (503, "OPENAI_BASE_URL")]
)
async def test_a_models_server_that_refuses(
    status: int,
    setting: str,
    redis_url: str,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.status = status
    code, told = await asked(monkeypatch, capsys, REDIS_URL=redis_url, OPENAI_BASE_URL=server.url)
    assert (code, told["model"][0]) == (1, False)
    assert told["model"][1].startswith(setting)


async def test_who_never_answers_is_left(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model server and a store both accept the connection and send nothing."""
    server.status = None
    monkeypatch.setattr(doctor_module, "MODEL_SECONDS", 0.5)
    store = server.url.replace("http", "redis").replace("/v1", "")
    code, told = await asked(monkeypatch, capsys, REDIS_URL=store, OPENAI_BASE_URL=server.url)
    assert code == 1
    assert told["store"][1].startswith("REDIS_URL")
    assert told["model"][1].startswith("OPENAI_BASE_URL")
    assert "queue" not in told  # The queue is in the same store.


async def test_a_store_that_wants_another_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    async with RedisServer() as store, Redis.from_url(store.url) as redis:
        await redis.config_set("requirepass", "right")
        wrong = store.url.replace("://", f"://:{SECRET}@")
        code, told = await asked(monkeypatch, capsys, REDIS_URL=wrong, OPENAI_BASE_URL=server.url)
    assert (code, told["store"][0]) == (1, False)
    assert "password" in told["store"][1]


async def test_the_command_ends_with_its_code_and_no_traceback() -> None:
    command = (sys.executable, "-m", "gateway", "doctor")
    environment = {"PATH": "/usr/bin:/bin", "REDIS_URL": "redis://127.0.0.1:1", "OPENAI_API_KEY": SECRET}
    environment["OPENAI_BASE_URL"] = "http://127.0.0.1:1/v1"
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=REPOSITORY,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 1
    assert err == b""
    assert b"REDIS_URL" in out
    assert SECRET.encode() not in out
