"""Our own handshake with Redis.

The tests check which commands are sent, which error a refusal raises, and that no connection stays open.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis import exceptions as redis_errors
from redis.asyncio import Redis

from gateway.redis.connect import Credentials, Endpoint, Place, Token
from gateway.redis.resp import Wire, packed


class Server:
    """A server that answers the first bytes of each connection with `answer`.

    `ended` is set when the connection of a client has ended.
    """

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer  # None: close the connection instead of answering.
        self.first: list[bytes] = []
        self.came, self.ended = asyncio.Event(), asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.first.append(await reader.read(65536))
            self.came.set()
            if self.answer is not None:
                writer.write(self.answer)
                await reader.read(65536)
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.ended.set()


@asynccontextmanager
async def serving(answer: bytes | None) -> AsyncIterator[Server]:
    server = Server(answer)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        server.url = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server
        if server.first:
            async with asyncio.timeout(60):
                await server.ended.wait()


class Tokens(Credentials):
    async def current(self) -> Token:
        return Token("principal", "secret", 0.0)

    async def after(self, token: Token) -> Token:
        raise AssertionError("the handshake asks for one token")


@pytest.mark.parametrize(
    ("user", "path", "commands"),
    [
        ("", "", []),
        (":pass%20word@", "/0", [("AUTH", "pass word")]),
        ("user:word@", "", [("AUTH", "user", "word")]),
        ("user@", "", [("AUTH", "user", "")]),
    ],
)
async def test_the_handshake_is_written_at_once(
    user: str, path: str, commands: list[tuple[str, ...]]
) -> None:
    answer = b"+OK\r\n" * (len(commands) + 1)
    async with serving(answer) as server:
        wire, token = await Endpoint(f"redis://{user}{server.url}{path}", name="me").open()
        wire.end(ConnectionError())
        assert token is None
        assert server.first == [b"".join(map(packed, [*commands, ("CLIENT", "SETNAME", "me")]))]


async def test_a_token_is_sent_instead_of_the_urls_password_and_given_back() -> None:
    async with serving(b"+OK\r\n" * 3) as server:
        place = Place(f"redis://:other@{server.url}/7", Tokens())
        wire, token = await Endpoint(place, name="me").open()
        wire.end(ConnectionError())
        assert token == await Tokens().current()
        commands = [("AUTH", "principal", "secret"), ("CLIENT", "SETNAME", "me"), ("SELECT", 7)]
        assert server.first == [b"".join(map(packed, commands))]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"-WRONGPASS no\r\n-NOAUTH no\r\n-NOAUTH no\r\n", redis_errors.AuthenticationError),
        (b"+OK\r\n-NOPERM no\r\n+OK\r\n", redis_errors.NoPermissionError),
        (b"+OK\r\n+OK\r\n-ERR DB index is out of range\r\n", redis_errors.ResponseError),
        (b"-LOADING no\r\n" * 3, redis_errors.BusyLoadingError),
        (b"+OK\r\nnothing that Redis says\r\n", redis_errors.InvalidResponse),
        (None, (redis_errors.ConnectionError, OSError)),
    ],
)
async def test_what_the_server_refuses_is_raised_and_the_connection_is_closed(
    answer: bytes | None, kind: type[Exception]
) -> None:
    async with serving(answer) as server:
        with pytest.raises(kind):
            await Endpoint(f"redis://:x@{server.url}/1", name="me").open()
        assert len(server.first) == 1  # `serving` also waits until this connection is closed.


async def test_who_stops_waiting_leaves_no_connection_open() -> None:
    async with serving(b"+OK\r\n") as server:  # One answer is sent. Two are expected.
        opening = asyncio.create_task(Endpoint(f"redis://:x@{server.url}", name="me").open())
        await server.came.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening


async def test_a_host_whose_name_cannot_be_one_is_a_connection_error() -> None:
    with pytest.raises((redis_errors.ConnectionError, OSError)):
        await Endpoint(f"redis://{'a' * 64}.example", name="me").open()


async def test_a_connection_that_has_ended_serves_nobody() -> None:
    lost: list[BaseException] = []
    wire, error = Wire(lambda _: None, lost.append), OSError("gone")
    wire.end(error)
    wire.connection_lost(None)
    assert lost == [error]
    with pytest.raises(redis_errors.ConnectionError):
        wire.serve(lambda _: None, lost.append)
    assert lost == [error]


async def test_the_kernel_asks_now_and_then_whether_the_server_is_there() -> None:
    async with serving(b"+OK\r\n") as server:
        wire, _ = await Endpoint(f"redis://{server.url}", name="me").open()
        assert wire._transport is not None
        asks = wire._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        wire.end(ConnectionError())
        assert asks == 1


async def test_redis_knows_us_by_name_and_in_the_database_that_was_asked_for(
    redis_url: str, redis: Redis
) -> None:
    assert "?" not in redis_url
    wire, _ = await Endpoint(f"{redis_url}?db=1", name="greeted").open()
    try:
        [mine] = [one for one in await redis.client_list() if one["name"] == "greeted"]
        assert mine["db"] == "1"
    finally:
        wire.end(ConnectionError())
