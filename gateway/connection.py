"""One pipelined connection to Redis, shared by every task of a process.

Commands of concurrent tasks are written together and their answers matched in order, so the number of
connections does not grow with readers or streams. redis-py opens the connection (TLS, credentials,
handshake) and packs and parses; what is left to us is the order. Before a token expires its successor is
sent on the live connection: AUTH goes its way between the commands.
Invariant: the n-th pending future belongs to the n-th answer; a connection that breaks fails them all.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection

from gateway.errors import StoreUnavailable
from gateway.link import (
    TIMEOUT_SECONDS,
    Credentials,
    Place,
    Token,
    connection_to,
    cut,
    place_of,
    reason_of,
    token_of,
)

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
_log = logging.getLogger("holdfast.connection")


def is_unavailable(error: Exception) -> bool:
    """Whether a server says with this that it is there but cannot do it now."""
    return isinstance(error, _UNAVAILABLE_ERRORS) or bool(_UNAVAILABLE_WORDS.search(str(error)))


def checked(answers: list[Answer]) -> list[Answer]:
    """These answers, unless one is an error: the first is raised, as StoreUnavailable where it is that."""
    for answer in answers:
        if isinstance(answer, Exception):
            if is_unavailable(answer):
                raise StoreUnavailable from answer
            raise answer
    return answers


class Connection:
    """Commands over one connection. Raises StoreUnavailable when a try takes over `timeout` seconds."""

    def __init__(self, where: str | Place, *, name: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._place = place_of(where)
        self._name = name
        self._timeout = timeout
        self._link: AbstractConnection | None = None
        self._opening = asyncio.Lock()
        self._failed_opens = 0
        self._complaint = ""  # why the last connect failed; said once
        self._closed = False
        self._pending: deque[asyncio.Future[Answer]] = deque()
        self._outbox: list[bytes] = []
        self._written = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def call(self, *command: str | bytes | int | float) -> Answer:
        """The answer of one command; sent again once when the connection broke, so it must be idempotent."""
        return checked(await self.answers([command]))[0]

    async def call_all(self, commands: list[tuple[Any, ...]]) -> list[Answer]:
        """The answers of several commands, written together. Raises what the first failed one raises."""
        return checked(await self.answers(commands))

    async def answers(self, commands: list[tuple[Any, ...]]) -> list[Answer]:
        """The same, but the answer of a command that is refused is its ResponseError."""
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
                if link is not None:  # also one that is not let in any more
                    await self._break(error, link)
                if attempt == _TRIES - 1:
                    raise StoreUnavailable from error
            except redis_errors.ResponseError as error:  # of the handshake
                checked([error])
        raise AssertionError("unreachable")

    async def by_node(self, keys: list[str]) -> list[list[str]]:
        """These keys, apart by the server that has them: each has its own clock, and its own faults."""
        return [keys] if keys else []

    async def nodes(self) -> list[Connection]:
        """A connection to each server that has keys, for what is asked of all of them."""
        return [self]

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
            if isinstance(answer, BaseException) and not isinstance(answer, redis_errors.ResponseError):
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
            if (token := token_of(link)) is not None and self._place.credentials is not None:
                renewing = self._renew(link, self._place.credentials, token)
                self._tasks.append(asyncio.create_task(renewing, name="redis-renew"))
            return link

    async def _connect(self) -> AbstractConnection:
        if self._closed:
            raise StoreUnavailable
        link = connection_to(self._place, name=self._name)
        try:
            await link.connect()
            if self._closed:
                raise StoreUnavailable
        except BaseException as error:
            self._failed_opens += isinstance(error, BROKEN)
            self._complain(error, link)
            cut(link)
            await link.disconnect(nowait=True)
            raise
        self._complaint = ""
        return link

    def _complain(self, error: BaseException, link: AbstractConnection) -> None:
        """Say why there is no connection; no second time while it stays the same."""
        reason = reason_of(error)
        if isinstance(error, BROKEN) and reason != self._complaint:
            self._complaint = reason
            _log.warning(
                "%s has no connection to the store at %s: %s", self._name, link._host_error(), reason
            )

    async def _renew(self, link: AbstractConnection, credentials: Credentials, token: Token) -> None:
        """Send each new token. Where it is refused, the connection goes on until the old one expires."""
        try:
            while True:
                token = await credentials.after(token)
                try:
                    async with asyncio.timeout(self._timeout):
                        checked(await self._exchange(link, [("AUTH", token.user, token.secret)]))
                except redis_errors.AuthenticationError:
                    _log.warning("%s: the store refuses the new token", self._name)
        except Exception as error:
            await self._break(error, link)

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
                except (redis_errors.ResponseError, redis_errors.AuthenticationError) as error:
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
