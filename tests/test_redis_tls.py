"""TLS to a real redis-server: the certificate is checked, and who is not the server gets no word of ours."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.connect import Endpoint
from gateway.redis.connection import Connection
from tests.support.certificates import certify
from tests.support.following import Stream, connected, following, reading
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.tls
CANARY = "canary-password"
LONG_SECONDS = 600.0  # a call that waited for its time to run out would outlast the test


@asynccontextmanager
async def serving(folder: Path, *names: str) -> AsyncIterator[tuple[RedisServer, str]]:
    """A server with a certificate for these names, and the authority behind it."""
    authority = certify(folder, *names)
    async with RedisServer(tls=folder) as server:
        yield server, authority


def url(server: RedisServer, authority: str = "", host: str = "localhost", user: str = "") -> str:
    asked = f"?ssl_ca_certs={authority}" if authority else ""
    return f"rediss://{user}{host}:{server.tls_port}/0{asked}"


async def refused(url: str, caplog: pytest.LogCaptureFixture) -> str:
    """What is logged when no connection can be had; StoreUnavailable must come soon, and once only a line."""
    with caplog.at_level(logging.DEBUG):
        async with connected(url, timeout=LONG_SECONDS) as connection:
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await connection.call("PING")
    assert CANARY not in caplog.text
    [line] = [record for record in caplog.records if record.name == "holdfast.connection"]
    return line.getMessage()


async def test_a_stream_is_written_and_followed_over_tls(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, "localhost") as (server, authority),
        following(url(server, authority)) as f,
    ):
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream) as [reader]:
            await stream.texts("a", "b")
            await stream.end()
            assert b'"b"' in await reader.all()
        assert isinstance(f.redis, Connection)
        assert f.redis._wire is not None
        assert f.redis._wire._transport is not None
        spoken = f.redis._wire._transport.get_extra_info("ssl_object")
        assert spoken.version() in ("TLSv1.2", "TLSv1.3")
        assert spoken.getpeercert()["subjectAltName"] == (("DNS", "localhost"),)


async def test_an_address_will_do_where_the_certificate_names_it(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, "127.0.0.1") as (server, authority),
        connected(url(server, authority, "127.0.0.1")) as connection,
    ):
        assert await connection.call("PING") == b"PONG"


async def test_an_unknown_authority_is_refused_at_once_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path / "theirs", "localhost") as (server, _):
        other = certify(tmp_path / "ours", "localhost")
        for authority in (other, ""):
            caplog.clear()
            line = await refused(url(server, authority, user=f"somebody:{CANARY}@"), caplog)
            assert "its certificate is not accepted" in line


async def test_a_certificate_of_another_name_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, "redis.example") as (server, authority):
        assert "Hostname mismatch" in await refused(url(server, authority), caplog)


async def test_a_port_without_tls_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"-ERR Protocol error\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        line = await refused(f"rediss://somebody:{CANARY}@127.0.0.1:{port}", caplog)
        assert "no TLS" in line


async def test_a_wrong_password_is_told_without_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tmp_path, "localhost") as (server, authority):
        line = await refused(url(server, authority, user=f"somebody:{CANARY}@"), caplog)
        assert line.endswith("it refuses our credentials")


def test_tls_is_1_2_at_least() -> None:
    context = Endpoint("rediss://redis.example:10000", name="test").tls
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_nothing_that_is_shown_holds_the_password() -> None:
    shown = repr(Connection(f"rediss://somebody:{CANARY}@redis.example", name="test")._place)
    endpoint = Endpoint(f"rediss://somebody:{CANARY}@redis.example", name="test")
    assert CANARY not in shown + repr(endpoint) + endpoint.address
