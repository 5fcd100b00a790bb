"""`make run-functions`: its port, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from .client import REPOSITORY

pytestmark = [pytest.mark.functions, pytest.mark.slow]
LIMIT_S = 60
ENVIRONMENT = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}  # so no model is brought


@asynccontextmanager
async def run_functions(port: int) -> AsyncIterator[Process]:
    """The command, in a terminal's foreground group of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.functions_host.local"),
        cwd=REPOSITORY,
        env={**os.environ, **ENVIRONMENT, "PORT": str(port)},
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


async def test_ctrl_c_ends_it_with_0_and_no_traceback() -> None:
    async with asyncio.timeout(LIMIT_S), run_functions(0) as process:
        assert process.stdout is not None
        serves = ""
        while not serves:
            line = (await process.stdout.readline()).decode()
            assert line, await process.communicate()
            serves = line.partition("Holdfast serves ")[2]
        async with httpx.AsyncClient(base_url=serves.partition(",")[0]) as http:
            assert (await http.get("/health")).status_code == 200
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, told = await process.communicate()
    assert process.returncode == 0
    assert b"Traceback" not in told
    assert b"the worker exited with code 0" in told


async def test_a_busy_port_is_said_in_one_line_before_anything_is_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        async with asyncio.timeout(LIMIT_S), run_functions(port) as process:
            said, told = await process.communicate()
    assert (process.returncode, said) == (1, b"")
    assert told.decode() == f"cannot listen on 127.0.0.1 port {port}: Address already in use\n"
