"""One pipelined connection to Redis, shared by every task of a process.

Commands of concurrent tasks are written together and their answers matched in order, so the number of
connections does not grow with readers or streams. redis-py opens the connection (TLS, credentials,
handshake) and packs and parses; what is left to us is the order.
Invariant: the n-th pending future belongs to the n-th answer; a connection that breaks fails them all.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection, ConnectionPool

from gateway.errors import StoreUnavailable

TIMEOUT_SECONDS = 5.0
BROKEN = (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError)
_TRIES = 2  # the second meets a connection that had been closed while it was idle
# Answers of a server that is there but cannot do it now.
_UNAVAILABLE_ERRORS = (
    redis_errors.ReadOnlyError,
    redis_errors.OutOfMemoryError,
    redis_errors.ClusterDownError,
    redis_errors.MovedError,
    redis_errors.TryAgainError,
)
# The same, and those without a class, at the beginning, or where a script relays it: before Redis 7
# `ERR Error running script (call to f_…): @user_script:9: -OOM command not allowed …`.
_UNAVAILABLE_WORDS = re.compile(
    r"(?:^|\s-?)(?:MISCONF|NOREPLICAS|MASTERDOWN|OOM|READONLY|LOADING|MOVED|CLUSTERDOWN|TRYAGAIN|BUSY)\s"
)

Answer = Any


def connection_to(url: str, *, name: str) -> AbstractConnection:
    """A connection that is not yet open, without time-outs or retries of its own: those are decided here."""
    pool = ConnectionPool.from_url(
        url,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=TIMEOUT_SECONDS,
        client_name=name,
        retry=None,
        retry_on_error=[],
        health_check_interval=0,
    )
    connection: AbstractConnection = pool.make_connection()
    return connection


def cut(link: AbstractConnection) -> None:
    """End a connection at once. An orderly close waits for ever for unsent bytes that nobody takes."""
    if link._writer is not None:
        link._writer.transport.abort()


class Connection:
    """Commands over one connection. Raises StoreUnavailable when a try takes over `timeout` seconds."""

    def __init__(self, url: str, *, name: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        self._name = name
        self._timeout = timeout
        self._link: AbstractConnection | None = None
        self._opening = asyncio.Lock()
        self._failed_opens = 0
        self._closed = False
        self._pending: deque[asyncio.Future[Answer]] = deque()
        self._outbox: list[bytes] = []
        self._written = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def call(self, *command: str | bytes | int | float) -> Answer:
        """The answer of one command; sent again once when the connection broke, so it must be idempotent."""
        return (await self.call_all([command]))[0]

    async def call_all(self, commands: list[tuple[Any, ...]]) -> list[Answer]:
        """The answers of several commands, written together. Raises what the first failed one raises."""
        for attempt in range(_TRIES):
            link = None
            try:
                async with asyncio.timeout(self._timeout):
                    link = self._link or await self._open()
                    return await self._exchange(link, commands)
            except TimeoutError as error:  # half open, or too slow to be of use
                if link is not None:
                    await self._break(error, link)
                raise StoreUnavailable from error
            except BROKEN as error:
                if attempt == _TRIES - 1:
                    raise StoreUnavailable from error
            except redis_errors.ResponseError as error:
                if isinstance(error, _UNAVAILABLE_ERRORS) or _UNAVAILABLE_WORDS.search(str(error)):
                    raise StoreUnavailable from error
                raise
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Close for good; whoever waits for an answer, or asks from now on, gets StoreUnavailable."""
        self._closed = True
        if self._link is not None:
            await self._break(redis_errors.ConnectionError("closed"), self._link)

    async def _exchange(self, link: AbstractConnection, commands: list[tuple[Any, ...]]) -> list[Answer]:
        packed = [part for command in commands for part in link.pack_command(*command)]  # may raise
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in commands]
        self._outbox += packed
        self._pending.extend(futures)
        self._written.set()
        answers = await asyncio.gather(*futures, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def _open(self) -> AbstractConnection:
        """One try serves all who wait for it, also when it fails: a dead server sees no storm of connects."""
        failed_opens = self._failed_opens
        async with self._opening:
            if self._link is not None:
                return self._link
            if self._failed_opens != failed_opens:
                raise redis_errors.ConnectionError("the connect that this call waited for has failed")
            self._link = link = await self._connect()
            self._tasks = [
                asyncio.create_task(self._write(link), name="redis-write"),
                asyncio.create_task(self._read(link), name="redis-read"),
            ]
            return link

    async def _connect(self) -> AbstractConnection:
        if self._closed:
            raise StoreUnavailable
        link = connection_to(self._url, name=self._name)
        try:
            await link.connect()
            if self._closed:
                raise StoreUnavailable
        except BaseException as error:
            self._failed_opens += isinstance(error, BROKEN)
            cut(link)
            await link.disconnect(nowait=True)
            raise
        return link

    async def _write(self, link: AbstractConnection) -> None:
        """Whatever has gathered while the last write was under way goes out in one."""
        try:
            while True:
                await self._written.wait()
                self._written.clear()
                outbox, self._outbox = self._outbox, []
                await link.send_packed_command(outbox, check_health=False)
        except Exception as error:  # without this task nobody would be answered
            await self._break(error, link)

    async def _read(self, link: AbstractConnection) -> None:
        try:
            while True:
                answer: Answer
                try:
                    answer = await link.read_response(disable_decoding=True, disconnect_on_error=False)
                except redis_errors.ResponseError as error:
                    answer = error
                future = self._pending.popleft()
                if future.done():
                    continue  # its caller was cancelled; the answer kept its place in the order
                if isinstance(answer, redis_errors.RedisError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except Exception as error:  # also an answer that nobody asked for: the order is lost
            await self._break(error, link)

    async def _break(self, reason: BaseException, link: AbstractConnection) -> None:
        """Drop this connection, once, and fail everyone who waits on it; a newer one is left alone."""
        if link is not self._link:
            return
        self._link = None
        cut(link)
        tasks, self._tasks = self._tasks, []
        pending, self._pending = self._pending, deque()
        self._outbox.clear()
        self._written.clear()
        for future in pending:
            if not future.done():
                future.set_exception(redis_errors.ConnectionError(str(reason)))
        others = [task for task in tasks if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        try:
            await asyncio.gather(*others, return_exceptions=True)
        finally:
            await link.disconnect(nowait=True)
