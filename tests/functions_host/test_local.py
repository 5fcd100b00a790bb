"""`make run-functions` with a user's own project: its port and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from holdfast_gateway import __version__
from holdfast_gateway.new import make
from tests.support.model_server import DEFAULT_TEXT, ModelServer
from tests.support.processes import store_ended

from .client import REPOSITORY

pytestmark = [pytest.mark.functions, pytest.mark.slow]
LIMIT_S = 110


@asynccontextmanager
async def run_functions(port: int, *arguments: str, **environment: str) -> AsyncIterator[Process]:
    """Run the command in its own foreground process group, as in a terminal."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.functions_host.local", *arguments),
        cwd=REPOSITORY,
        env={**os.environ, **environment, "PORT": str(port)},
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_it_serves_what_holdfast_new_makes_and_ctrl_c_ends_it_with_0_and_no_traceback(
    tmp_path: Path,
) -> None:
    project = make("trip", __version__, tmp_path)
    async with (
        asyncio.timeout(LIMIT_S),
        ModelServer() as model,
        run_functions(0, "--app", str(project), **model.environment()) as process,
    ):
        assert process.stdout is not None
        serves = ""
        while not serves:
            line = (await process.stdout.readline()).decode()
            assert line, await process.communicate()
            serves = line.partition("Holdfast serves ")[2]
        async with httpx.AsyncClient(base_url=serves.partition(",")[0], timeout=LIMIT_S) as http:
            question = {"chain": "trip", "user": "Three days in Rome"}
            told = await http.post("/stream", json=question, headers={"accept": "text/event-stream"})
            assert told.text.count("delta_content") == len(DEFAULT_TEXT.split()), told.text
            assert "\nevent: done\n" in told.text
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
        _, logged = await process.communicate()
    assert process.returncode == 0
    assert b"Traceback" not in logged
    assert b"the worker exited" not in logged  # it is logged for every exit code but 0
    assert (project / ".holdfast" / "appendonlydir").is_dir()
    await store_ended(project / ".holdfast")


async def test_a_busy_port_is_said_in_one_line_before_anything_is_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        async with asyncio.timeout(LIMIT_S), run_functions(port) as process:
            said, told = await process.communicate()
    assert (process.returncode, said) == (1, b"")
    assert told.decode() == f"cannot listen on 127.0.0.1 port {port}: Address already in use\n"
