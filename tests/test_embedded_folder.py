"""A store in a folder: which process starts its server, which ends it, and what is left. Real processes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.redis import embedded_keeper
from gateway.redis.embedded_folder import LONGEST_SOCKET, FolderStore
from gateway.redis.embedded_keeper import KEEPER, SERVER, Failed, opened, taken
from tests.support.processes import store_ended

ROOT = Path(__file__).parents[1]
BOUND_SECONDS = 60
USER = """
import asyncio, sys
from pathlib import Path
from gateway.redis.embedded_folder import FolderStore
async def main():
    store = FolderStore(Path(sys.argv[1]), sys.argv[2])
    await store.start()
    print(store.url, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """Yield the path for a store, and wait at the end until no server runs there."""
    yield tmp_path / "store"
    await store_ended(tmp_path / "store")


@pytest.fixture
def new(folder: Path) -> Callable[[], FolderStore]:
    program = shutil.which("redis-server")
    assert program
    return lambda: FolderStore(folder, program)


@asynccontextmanager
async def using(store: FolderStore) -> AsyncIterator[Redis]:
    async with asyncio.timeout(BOUND_SECONDS):
        await store.start()
    try:
        async with Redis.from_url(store.url) as client:
            yield client
    finally:
        store.stop()


@asynccontextmanager
async def another(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run another process that uses the store. SIGKILL ends that process."""
    program = shutil.which("redis-server")
    assert program
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", USER, str(folder), program),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # As in a terminal of its own.
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(BOUND_SECONDS):
            assert (await process.stdout.readline()).startswith(b"unix://")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def pid_of(client: Redis) -> int:
    told: dict[str, Any] = await client.info("server")
    return int(told["process_id"])


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def end_of_log(folder: Path) -> Path:
    """Return the file to which the server appends. Redis 6.2 has only one such file."""
    [found] = [*folder.glob("appendonlydir/*.incr.aof"), *folder.glob("appendonly.aof")]
    return found


def keeper_of(server: int) -> int:
    """Return the id of the process that started this server."""
    fields = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


async def test_what_was_written_is_there_when_the_last_user_has_gone_and_another_comes(
    folder: Path, new: Callable[[], FolderStore]
) -> None:
    async with using(new()) as client:
        first = await pid_of(client)
        await client.xadd("jobs", {"p": "1"})
        await client.set("log", b"\r\n\0")
        await client.pexpire("log", 3_600_000)
    await store_ended(folder)
    assert not is_there(first)
    async with using(new()) as client:
        assert await pid_of(client) != first
        assert [await client.get("log"), await client.xlen("jobs")] == [b"\r\n\0", 1]
        assert 0 < await client.pttl("log") <= 3_600_000


async def test_whoever_comes_second_uses_the_same_server_which_does_not_end_with_the_first(
    folder: Path, new: Callable[[], FolderStore]
) -> None:
    first, second = new(), new()
    async with AsyncExitStack() as stack:
        pid = await pid_of(await stack.enter_async_context(using(first)))
        async with using(second) as client:
            assert (first.is_joined, second.is_joined) == (False, True)
            assert await pid_of(client) == pid
            first.stop()
            first.stop()  # A second stop does nothing.
            assert not taken(opened(str(folder / SERVER)), fcntl.LOCK_EX)
            assert await client.incr("n") == 1
    await store_ended(folder)
    assert not is_there(pid)


async def test_of_many_that_start_at_once_one_starts_the_server(new: Callable[[], FolderStore]) -> None:
    stores = [new() for _ in range(5)]
    async with AsyncExitStack() as stack:
        entering = (stack.enter_async_context(using(store)) for store in stores)
        clients = await asyncio.gather(*entering)
        assert len({await pid_of(client) for client in clients}) == 1
        assert sorted(store.is_joined for store in stores) == [False, True, True, True, True]


async def test_a_killed_process_takes_the_store_from_nobody_and_the_last_one_takes_it_along(
    folder: Path, new: Callable[[], FolderStore]
) -> None:
    async with another(folder) as first:
        async with using(new()) as client:
            pid = await pid_of(client)
            of_terminal = {os.getpgid(first.pid), os.getpgid(0)}  # Ctrl-C reaches these process groups.
            assert not {os.getpgid(pid), os.getpgid(keeper_of(pid))} & of_terminal
            first.kill()
            await first.wait()
            assert await client.set("a", "1")
        await store_ended(folder)
        assert not is_there(pid)
    async with another(folder) as alone:
        alone.kill()
        await alone.wait()
        await store_ended(folder)
    async with using(new()) as client:
        assert await client.get("a") == b"1"


async def test_a_server_without_its_keeper_is_taken_over_and_ends_with_its_last_user(
    folder: Path, new: Callable[[], FolderStore]
) -> None:
    async with using(new()) as client:
        pid = await pid_of(client)
        os.kill(keeper_of(pid), signal.SIGKILL)
        lock = opened(str(folder / KEEPER))
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        os.close(lock)
    assert is_there(pid)
    later = new()
    async with using(later) as client:
        assert (later.is_joined, await pid_of(client)) == (True, pid)
    await store_ended(folder)  # Otherwise its lock would not be free.


async def test_what_a_killed_server_has_answered_is_there_and_a_torn_end_is_cut_off(
    folder: Path, new: Callable[[], FolderStore]
) -> None:
    async with using(new()) as client:
        await client.set("a", "1")
        os.kill(await pid_of(client), signal.SIGKILL)
    await store_ended(folder)
    with end_of_log(folder).open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$40\r\nhalf of what was to be")
    for _ in range(2):  # After the repair the file is complete.
        async with using(new()) as client:
            assert [await client.get("a"), await client.get("b")] == [b"1", None]
        await store_ended(folder)


async def test_nobody_else_can_reach_it(folder: Path, new: Callable[[], FolderStore]) -> None:
    store = new()
    async with using(store) as client:
        told: dict[str, Any] = await client.info("server")
        assert told["tcp_port"] == 0
        assert store.url == f"unix://{folder}/store.sock"
        assert [mode_of(path) for path in (folder, folder / "store.sock")] == [0o700, 0o600]
        assert mode_of(end_of_log(folder)) == 0o600
    assert (folder / ".gitignore").read_text().splitlines()[-1] == "*"


async def test_where_the_path_is_too_long_the_socket_is_elsewhere_and_goes_with_the_server(
    folder: Path,
) -> None:
    program = shutil.which("redis-server")
    assert program
    deep = folder / ("d" * 60) / ("d" * 60)
    first, second = FolderStore(deep, program), FolderStore(deep, program)
    async with using(first) as one, using(second) as other:
        socket = Path(first.url.removeprefix("unix://"))
        assert len(os.fsencode(socket)) <= LONGEST_SOCKET
        assert not socket.is_relative_to(folder)
        assert [mode_of(path) for path in (socket.parent, socket)] == [0o700, 0o600]
        assert await pid_of(one) == await pid_of(other)
    await store_ended(deep)
    assert not socket.parent.exists()


async def test_a_server_that_does_not_start_is_an_error_with_its_own_words(
    folder: Path, tmp_path: Path
) -> None:
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho no memory today; exit 1\n")
    program.chmod(0o755)
    store = FolderStore(folder, str(program))
    with pytest.raises(RuntimeError, match=r"does not start: it has ended at its start \| no memory today"):
        await store.start()
    await store_ended(folder)
    with pytest.raises(RuntimeError, match="No such file"):
        await FolderStore(folder, str(tmp_path / "none")).start()


def test_no_second_server_is_started_beside_one_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(embedded_keeper, "LOCK_SECONDS", 0.0)
    held = opened(SERVER)
    assert taken(held, fcntl.LOCK_EX)
    with pytest.raises(Failed, match="does not answer"):
        embedded_keeper._started(["/no/such/program"])
    os.close(held)
