"""The server inside Azure Functions' extension, behind the platform's own runtime."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import uvicorn
from azurefunctions.extensions.http.fastapi import web
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.hosts import functions_extension
from tests.support.processes import REPOSITORY

pytestmark = pytest.mark.functions
runtime = pytest.importorskip("azure_functions_runtime.http_v2")  # It needs Python 3.13.

SECRET = "function-key-7f3a"
HOST_IDLE_SECONDS = 60  # .NET's PooledConnectionIdleTimeout
HOST_HEAD_BYTES = 32 * 1024  # Kestrel's MaxRequestHeadersTotalSize: larger heads do not pass the host
# Program for a process whose event loop is blocked, so that the process cannot end cleanly.
HELD = """
import asyncio, threading, uvicorn
from gateway.hosts import functions_extension as extension

class Process:
    async def let_go(self): pass
    async def close(self): pass

async def app(scope, receive, send): pass

async def main():
    extension.LIMIT_SECONDS = 0.05
    server = extension.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"), Process())
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0)
    print("held", flush=True)
    threading.Event().wait()

asyncio.run(main())
"""


class Nothing:
    """A stand-in for a process in which nothing runs."""

    async def let_go(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


@dataclass(slots=True)
class Connection:
    """One connection from the host's proxy to the server, together with the runtime's side of it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: uvicorn.Server
    asked: int = 0

    async def ask(self, answer: Response | Exception, fields: str = "") -> bytes:
        """Send a request and return the head of the answer.

        The function's call and its request meet in the coordinator. The request's head also has these fields,
        and arrives in two pieces.
        """
        self.asked += 1
        invocation = f"call-{id(self)}-{self.asked}"
        names = f"host: x\r\n{functions_extension.INVOCATION_ID}: {invocation}\r\n{fields}"
        head = f"GET /health?code={SECRET} HTTP/1.1\r\n{names}\r\n"
        self.writer.write(head[:-1].encode())
        await turns()
        self.writer.write(head[-1:].encode())
        await runtime.http_coordinator.get_http_request_async(invocation)
        runtime.http_coordinator.set_http_response(invocation, answer)
        head_of_answer = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head_of_answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await self.reader.readexactly(length)
        return head_of_answer


@pytest_asyncio.fixture
async def connection(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connection]:
    """Yield a connection to the server that the runtime starts after it has indexed an app."""
    monkeypatch.setattr(web, "FastAPI", web.FastAPI)
    monkeypatch.setattr(web.WebServer, "serve", web.WebServer.serve)
    monkeypatch.setattr(runtime.HttpV2Registry, "_http_v2_enabled_checked", False)
    servers: list[uvicorn.Server] = []
    startup = uvicorn.Server.startup

    async def noted(self: uvicorn.Server, *sockets: Any, **named: Any) -> None:
        servers.append(self)
        await startup(self, *sockets, **named)

    monkeypatch.setattr(uvicorn.Server, "startup", noted)
    functions_extension.install(Nothing())
    assert runtime.HttpV2Registry.http_v2_enabled()
    others = asyncio.all_tasks()
    address = urlsplit(runtime.initialize_http_server("127.0.0.1"))
    [serving] = asyncio.all_tasks() - others
    while True:
        try:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
        except ConnectionRefusedError:
            await asyncio.sleep(0)
            continue
        break
    yield Connection(reader, writer, servers[0])
    writer.close()
    servers[0].should_exit = True
    await serving


async def test_nothing_is_printed_of_a_request(
    capfd: pytest.CaptureFixture[str], connection: Connection
) -> None:
    for _ in range(2):  # The output for the first answer is written before the second answer.
        assert (await connection.ask(Response("a"))).startswith(b"HTTP/1.1 200")
    assert capfd.readouterr() == ("", "")


async def test_the_runtimes_notes_are_dropped_with_their_answers(connection: Connection) -> None:
    for _ in range(20):
        assert (await connection.ask(Response("a"))).startswith(b"HTTP/1.1 200")
    assert (await connection.ask(LookupError("of the function"))).startswith(b"HTTP/1.1 500")
    assert runtime.http_coordinator._context_references == {}


async def test_an_idle_connection_outlives_the_hosts_patience(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: time.monotonic() + ahead)
    await connection.ask(Response("a"))
    ahead += HOST_IDLE_SECONDS + 1
    await turns()
    assert not connection.reader.at_eof()
    assert (await connection.ask(Response("b"))).startswith(b"HTTP/1.1 200")
    ahead += functions_extension.KEEP_ALIVE_SECONDS + 1
    assert await connection.reader.read() == b""


async def test_the_server_is_made_of_what_is_deployed(connection: Connection) -> None:
    """uvicorn uses httptools if it is installed, as it is here. It is not installed in Azure."""
    await connection.ask(Response("a"))
    [protocol] = connection.server.server_state.connections
    assert type(protocol) is H11Protocol


async def test_a_head_that_passes_the_host_is_taken_in_pieces(connection: Connection) -> None:
    """App Service's sign-in adds header fields of some kilobytes each."""
    fields = f"x-ms-token-aad-id-token: {'t' * (HOST_HEAD_BYTES - 200)}\r\n"
    assert (await connection.ask(Response("a"), fields)).startswith(b"HTTP/1.1 200")


async def turns() -> None:
    """Let the event loop run all ready callbacks, and the callbacks that these schedule."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_process_whose_event_loop_is_held_ends_all_the_same() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HELD), cwd=REPOSITORY, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    os.kill(process.pid, signal.SIGTERM)
    told: Any = await process.communicate()
    assert process.returncode == 1
    assert b"the process ends though not everything in it has" in told[1]
