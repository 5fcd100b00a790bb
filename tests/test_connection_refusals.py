"""Row 10: a Redis server that runs but cannot serve a command now. Each error comes from a real server."""

from __future__ import annotations

import asyncio
import os

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.connection import Connection
from gateway.redis.refusals import UNAVAILABLE_WORDS, is_elsewhere, is_forbidden, told_by_hello, word_of
from tests.support.following import Stream, connected, following
from tests.support.redis_server import RedisServer


async def test_fault_10_out_of_memory_is_unavailable_and_reads_still_work() -> None:
    async with RedisServer() as server, following(server.url) as f, Redis.from_url(server.url) as redis:
        stream = await Stream.create(f.log)
        await stream.texts("a")
        await redis.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable):
            await f.redis.call("SET", "k", "v")
        with pytest.raises(StoreUnavailable):
            await stream.texts("b")
        assert (await f.log.read(stream.id, None)).frames == await stream.log_bytes(redis)
        await redis.config_set("maxmemory", 0)
        await stream.texts("b")


async def test_fault_10_a_demoted_server_is_unavailable_and_reads_still_work() -> None:
    async with RedisServer() as server, following(server.url) as f, Redis.from_url(server.url) as redis:
        stream = await Stream.create(f.log)
        await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailable):
            await f.redis.call("SET", "k", "v")
        with pytest.raises(StoreUnavailable):
            await stream.texts("b")
        assert (await f.log.read(stream.id, None)).frames == await stream.log_bytes(redis)
        await redis.config_set("replica-serve-stale-data", "no")
        with pytest.raises(StoreUnavailable):  # The server answers MASTERDOWN.
            await f.log.read(stream.id, None)
        await redis.execute_command("REPLICAOF", "NO", "ONE")
        await stream.texts("b")


async def refused(connection: Connection, seconds: float = 30) -> None:
    """Send commands until the server refuses one."""
    async with asyncio.timeout(seconds):
        while True:
            await connection.call("GET", "k")


async def test_fault_10_a_server_busy_with_a_script_is_unavailable() -> None:
    async with (
        RedisServer() as server,
        connected(server.url) as connection,
        Redis.from_url(server.url) as redis,
    ):
        await redis.config_set("lua-time-limit", 1)  # All server versions know the option by this name.
        endless = Connection(server.url, name="endless", timeout=30)
        script = asyncio.create_task(endless.call("EVAL", "while true do end", 0))
        with pytest.raises(StoreUnavailable):
            await refused(connection)
        await redis.script_kill()
        with pytest.raises(ResponseError, match="killed"):
            await script
        await endless.close()
        assert await connection.call("GET", "k") is None


@pytest.mark.slow
async def test_fault_10_a_server_that_is_loading_is_unavailable() -> None:
    """A replica that loads its master's data slowly gives the same error as a server after a restart."""
    async with (
        RedisServer() as server,
        RedisServer(tcp=True) as master,
        connected(server.url, timeout=30) as connection,
        Redis.from_url(master.url) as redis,
        Redis.from_url(server.url) as behind,
    ):
        await redis.config_set("repl-diskless-sync-delay", 0)
        for number in range(300):  # The server answers commands after each 2 MB of loaded data.
            await redis.set(f"k{number}", os.urandom(400_000), px=60_000)  # incompressible
        # Microseconds. All keys need 6 s, which is longer than one call repeats its command.
        await behind.config_set("key-load-delay", 20_000)
        await behind.execute_command("REPLICAOF", "127.0.0.1", master.port)
        with pytest.raises(StoreUnavailable):
            await refused(connection)
        await behind.config_set("key-load-delay", 0)
        await until_answered(connection)


async def until_answered(connection: Connection) -> None:
    """Send commands until the server answers again."""
    async with asyncio.timeout(30):
        while True:
            try:
                await connection.call("GET", "k0")
                return
            except StoreUnavailable:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("text", "unavailable"),
    [
        ("LOADING Redis is loading the dataset in memory", True),
        ("MISCONF Errors writing to the AOF file", True),
        ("MOVED 3999 127.0.0.1:6381", True),
        ("OOM command not allowed when used memory > 'maxmemory'. script: a0b1, on @user_script:3.", True),
        ("Error running script (call to f_a0b1): @user_script:9: -OOM command not allowed when", True),
        ("Error running script (call to f_a0b1): @user_script:9: -READONLY You can't write against a", True),
        ("The user executing the script can't run this command or subcommand script: a0b1", True),
        ("The user executing the script can't access at least one of the keys mentioned in the", True),
        ("The user executing the script can't publish to the channel mentioned in the command", True),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("BUSYGROUP Consumer Group name already exists", False),
        ("unknown command 'OOMPH', with args beginning with: ", False),
    ],
)
def test_a_servers_refusal_is_known_by_its_word(text: str, unavailable: bool) -> None:
    """Servers before Redis 7 use other texts. The test server is newer, so these texts are given here."""
    assert bool(UNAVAILABLE_WORDS.search(text)) is unavailable


@pytest.mark.parametrize(
    ("text", "elsewhere", "word"),
    [
        ("READONLY You can't write against a read only replica.", True, "READONLY"),
        ("Error running script (call to f_a0b1): @user_script:9: -READONLY You can't", True, "READONLY"),
        (
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            True,
            "MASTERDOWN",
        ),
        ("NOREPLICAS Not enough good replicas to write.", True, "NOREPLICAS"),
        ("UNBLOCKED force unblock from blocking operation, instance state changed", True, "UNBLOCKED"),
        ("UNBLOCKED the stream key no longer exists", False, "UNBLOCKED"),
        ("OOM command not allowed when used memory > 'maxmemory'.", False, ""),
        ("NOPERM this user has no permissions to run the 'get' command", False, "NOPERM"),
        ("The user executing the script can't run this command or subcommand", False, "NOPERM"),
    ],
)
def test_a_server_that_is_perhaps_not_the_primary_is_known_by_its_word(
    text: str, elsewhere: bool, word: str
) -> None:
    error = ResponseError(text)
    assert is_elsewhere(error) is elsewhere
    assert is_forbidden(error) is (word == "NOPERM")
    assert word_of(error) == word or not elsewhere


def test_hello_tells_by_name_and_anything_else_tells_nothing() -> None:
    answer = [b"server", b"redis", b"proto", 2, b"role", b"replica", b"modules", []]
    assert told_by_hello(answer, b"role") == b"replica"
    for other in (answer[:4], [b"role"], None, ResponseError("unknown command"), [b"proto", 2]):
        assert told_by_hello(other, b"role") == b""
