"""One pipelined connection to Redis, shared by every task of a process.

Commands of concurrent tasks are written together and their answers matched in order, so the number of
connections does not grow with readers or streams. redis-py opens the connection (TLS, credentials,
handshake); what is left to us is the order. Before a token expires its successor is
sent on the live connection: AUTH goes its way between the commands.
Invariant: answers belong to the pending exchanges in order; a connection that breaks fails them all.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
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
from gateway.pending import Answer, Pending
from gateway.wire import Wire, packed

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
        self._wire: Wire | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._failed_opens = 0
        self._complaint = ""  # why the last connect failed; said once
        self._closed = False
        self._pending = Pending(timeout, self._overdue)

    async def call(self, *command: str | bytes | int | float) -> Answer:
        """The answer of one command; sent again once when the connection broke, so it must be idempotent."""
        return checked(await self.answers([command]))[0]

    async def call_all(self, commands: list[tuple[Any, ...]]) -> list[Answer]:
        """The answers of several commands, written together. Raises what the first failed one raises."""
        return checked(await self.answers(commands))

    async def answers(self, commands: list[tuple[Any, ...]]) -> list[Answer]:
        """The same, but the answer of a command that is refused is its ResponseError."""
        for attempt in range(_TRIES):
            wire = self._wire
            try:
                if wire is None:
                    async with asyncio.timeout(self._timeout):
                        wire = await self._open()
                return await self._exchange(wire, commands)
            except TimeoutError as error:  # half open, or too slow to be of use
                raise StoreUnavailable from error
            except BROKEN as error:
                if wire is not None:  # also one that is not let in any more
                    wire.end(error)
                if attempt == _TRIES - 1:
                    raise StoreUnavailable from error
            except redis_errors.ResponseError as error:  # of the handshake
                checked([error])
        raise AssertionError("unreachable")

    def slot(self, key: str) -> int:
        """Keys of one slot may go in one script; of a single server all have the same."""
        return 0

    def post(self, key: str, command: tuple[Any, ...], heard: Callable[[Answer], None]) -> bool:
        """Send a command of this key without a task; `heard` gets its answer, or the exception in its place.

        False where no connection is open: nothing was sent, and `heard` is not called. There is no second
        try: what has failed is asked again by `call`, so it must be idempotent.
        """
        if self._wire is None:
            return False
        whole = packed(command)  # may raise
        self._wire.send(whole, at_once=True)
        self._pending.add(1, lambda answers, error: heard(error or answers[0]))
        return True

    async def by_node(self, keys: list[str]) -> list[list[str]]:
        """These keys, apart by the server that has them: each has its own clock, and its own faults."""
        return [keys] if keys else []

    async def nodes(self) -> list[Connection]:
        """A connection to each server that has keys, for what is asked of all of them."""
        return [self]

    async def close(self) -> None:
        """Close for good; whoever waits for an answer, or asks from now on, gets StoreUnavailable."""
        self._closed = True
        await self._let_go("closed")

    async def _exchange(self, wire: Wire, commands: list[tuple[Any, ...]]) -> list[Answer]:
        if wire is not self._wire:
            raise redis_errors.ConnectionError("the connection has ended")
        packed_commands = [packed(command) for command in commands]  # may raise
        done: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()

        def heard(answers: list[Answer], error: Exception | None) -> None:
            if done.done():  # its caller was cancelled
                return
            if error is None:
                done.set_result(answers)
            else:
                done.set_exception(error)

        wire.send(*packed_commands, at_once=not self._pending)
        self._pending.add(len(commands), heard)
        answers = await done
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, redis_errors.ResponseError):
                raise answer
        return answers

    async def _open(self) -> Wire:
        """One try serves all who wait for it, also when it fails: a dead server sees no storm of connects."""
        failed_opens = self._failed_opens
        async with self._opening:
            if self._wire is not None:
                return self._wire
            if self._failed_opens != failed_opens:
                raise redis_errors.ConnectionError("the connect that this call waited for has failed")
            link = await self._connect()
            self._link, self._wire = link, Wire(link, self._pending.answered, self._lost)
            if (token := token_of(link)) is not None and self._place.credentials is not None:
                renewing = self._renew(self._wire, self._place.credentials, token)
                self._renewing = asyncio.create_task(renewing, name="redis-renew")
            return self._wire

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

    async def _renew(self, wire: Wire, credentials: Credentials, token: Token) -> None:
        """Send each new token. Where it is refused, the connection goes on until the old one expires."""
        try:
            while True:
                token = await credentials.after(token)
                try:
                    checked(await self._exchange(wire, [("AUTH", token.user, token.secret)]))
                except redis_errors.AuthenticationError:
                    _log.warning("%s: the store refuses the new token", self._name)
        except Exception as error:
            wire.end(error)

    def _overdue(self) -> None:
        if self._wire is not None:
            self._wire.end(redis_errors.ConnectionError("no answer in time"))

    def _lost(self, reason: BaseException) -> None:
        """The connection has ended: everyone who waits on it fails."""
        link, self._link, self._wire = self._link, None, None
        if link is not None:
            link._close()
        self._pending.fail(str(reason))
        renewing, self._renewing = self._renewing, None
        if renewing is not None and renewing is not asyncio.current_task():
            renewing.cancel()

    async def _let_go(self, why: str) -> None:
        """End the connection, and wait for what has gone with it."""
        renewing = self._renewing
        if self._wire is not None:
            self._wire.end(redis_errors.ConnectionError(why))
        if renewing is not None:
            await asyncio.gather(renewing, return_exceptions=True)
