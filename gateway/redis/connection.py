"""One pipelined connection to Redis, shared by every task of a process.

Commands of concurrent tasks are written together and their answers matched in order, so the number of
connections does not grow with readers or streams. redis-py opens the connection (TLS, credentials,
handshake); what is left to us is the order. Before a token expires its successor is
sent on the live connection: AUTH goes its way between the commands.
A server that is not the primary any more is left, and its name asked again: where it refuses a write for that
reason, or says so when it is asked for its role every two seconds. How often is bounded, with jitter.
Invariant: answers belong to the pending exchanges in order; a connection that breaks fails them all.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.connect import (
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
from gateway.redis.refusals import is_elsewhere, is_forbidden, is_unavailable, told_by_hello, word_of
from gateway.redis.replies import Answer, Pending
from gateway.redis.resp import Wire, packed
from gateway.runtime.backoff import Backoff

BROKEN = (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError)
# What a server says of a command, and not of the connection; the second is LOADING.
_ANSWERS = (redis_errors.ResponseError, redis_errors.BusyLoadingError)
_OPENS = 2  # the second meets a connection that had been closed while it was idle
# A server that closes connections again and again (client eviction, a proxy that restarts): more tries, with
# pauses in seconds before those after the second.
_PAUSES_SECONDS = (0.0, 0.0, 0.1, 0.2, 0.4)
_REOPEN_SECONDS = (0.05, 0.2)  # between two connects of which the first has failed
_LEAVE_SECONDS = (0.1, 1.0)  # between leaving one connection for its server's role and leaving the next
CALM_SECONDS = 10.0  # without a refusal: the next one is a first one
ROLE_SECONDS = 2.0  # between two questions for the server's role

_log = logging.getLogger("holdfast.connection")


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
        self._opening: asyncio.Task[Wire] | None = None
        self._reopening = Backoff(*_REOPEN_SECONDS, forget=CALM_SECONDS)
        self._leaving = Backoff(*_LEAVE_SECONDS, forget=CALM_SECONDS)
        self._left: Wire | None = None  # the last one that was left for its server's role
        self._forbidden_at = float("-inf")  # when a server has last said that its user may not
        self._refused_at: float | None = None  # when a server has last said that it is not the primary
        # Told of the primary that was found after a leave; where somebody is, it is looked for at once.
        self.moved: Callable[[], None] | None = None
        self._complaint = ""  # why the last connect failed; said once
        self._closed = False
        self._pending = Pending(timeout, self._overdue)

    async def call(self, *command: str | bytes | int | float) -> Answer:
        """The answer of one command; sent up to four times more, so it must be idempotent."""
        return checked(await self.answers([command]))[0]

    async def call_all(self, commands: list[tuple[Any, ...]]) -> list[Answer]:
        """The answers of several commands, written together. Raises what the first failed one raises."""
        return checked(await self.answers(commands))

    async def answers(self, commands: list[tuple[Any, ...]]) -> list[Answer]:
        """The same, but the answer of a command that is refused is its ResponseError."""
        if not commands:  # an exchange without answers would wait for ever, and keep all behind it waiting
            return []
        for attempt, pause in enumerate(_PAUSES_SECONDS, start=1):
            if pause:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            last = attempt == len(_PAUSES_SECONDS)
            wire = self._wire
            try:
                if wire is None:
                    wire = await self._opened()
                answers = await self._exchange(wire, commands)
                if last or wire is not self._left or not any(map(is_elsewhere, answers)):
                    return answers
            except TimeoutError as error:  # half open, or too slow to be of use
                raise StoreUnavailable from error
            except BROKEN as error:
                if wire is not None:  # also one that is not let in any more
                    wire.end(error)
                if last or (wire is None and attempt >= _OPENS):
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
            if isinstance(answer, Exception) and not isinstance(answer, _ANSWERS):
                raise answer
        return answers

    async def _opened(self) -> Wire:
        """One try serves all who wait for it, also when it fails: a dead server sees no storm of connects.

        Who stops waiting leaves the try to the others. Raises TimeoutError, or what the try raises.
        """
        opening = self._begin_opening()
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if opening.cancelled() and not (caller and caller.cancelling()):
                raise StoreUnavailable from None  # it was closed meanwhile
            raise

    def _begin_opening(self) -> asyncio.Task[Wire]:
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open(), name="redis-open")
            self._opening.add_done_callback(_seen)
        return self._opening

    async def _open(self) -> Wire:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._timeout):
            await asyncio.sleep(self._reopening.left(loop.time()))
            self._reopening.tried(loop.time())
            link = await self._connect()
        self._reopening.reset()
        self._link = link
        self._wire = wire = Wire(link, self._pending.answered, self._lost, refused=self._refused)
        if (token := token_of(link)) is not None and self._place.credentials is not None:
            renewing = self._renew(wire, self._place.credentials, token)
            self._renewing = asyncio.create_task(renewing, name="redis-renew")
        self._ask_role_later(wire, 0.0 if self._refused_at is not None else ROLE_SECONDS)
        return wire

    async def _connect(self) -> AbstractConnection:
        if self._closed:
            raise StoreUnavailable
        link = connection_to(self._place, name=self._name)
        try:
            await link.connect()
            if self._closed:
                raise StoreUnavailable
        except BaseException as error:
            self._complain(error, link)
            cut(link)
            await link.disconnect(nowait=True)
            raise
        self._complaint = ""
        return link

    def _complain(self, error: BaseException, link: AbstractConnection) -> None:
        """Say why there is no connection; no second time while it stays the same."""
        reason = reason_of(error)
        if isinstance(error, (*BROKEN, redis_errors.RedisError)) and reason != self._complaint:
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

    def _refused(self, error: Exception) -> None:
        """A server has refused something: perhaps it is not the one to ask any more."""
        if is_elsewhere(error):
            self._leave(word_of(error))
        elif is_forbidden(error):
            before, self._forbidden_at = self._forbidden_at, asyncio.get_running_loop().time()
            if self._forbidden_at - before > CALM_SECONDS:
                _log.warning(
                    "%s: the store at %s forbids its user a command (NOPERM)", self._name, self._where()
                )

    def _leave(self, why: str) -> None:
        """End this connection, so that the next one goes where the name leads now; not too often.

        Answers that have come go their way first; whoever still waits is answered by the next connection.
        """
        wire, loop = self._wire, asyncio.get_running_loop()
        now = loop.time()
        if self._refused_at is None:
            _log.warning("%s leaves the store at %s and asks for it anew: %s", self._name, self._where(), why)
        self._refused_at = now
        if wire is None or wire is self._left or self._leaving.left(now):
            return
        self._leaving.tried(now)
        self._left = wire
        loop.call_soon(self._go, wire)

    def _go(self, wire: Wire) -> None:
        wire.end(redis_errors.ConnectionError("left for its role"))
        if self.moved is not None and not self._closed and self._wire is None:
            self._begin_opening()

    def _ask_role_later(self, wire: Wire, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._ask_role, wire)

    def _ask_role(self, wire: Wire) -> None:
        """HELLO is allowed to every user, and changes nothing when nothing is asked with it."""
        if wire is self._wire and not self._closed:
            wire.send(packed(("HELLO",)))
            self._pending.add(1, lambda answers, error: self._told_role(wire, answers))

    def _told_role(self, wire: Wire, answers: list[Answer]) -> None:
        if not answers or wire is not self._wire:
            return
        role = told_by_hello(answers[0], b"role")
        now = asyncio.get_running_loop().time()
        if role not in (b"master", b""):
            self._leave("it is a replica")
            self._ask_role_later(wire, self._leaving.left(now))  # again, where it may not be left yet
            return
        if self._left is not None:
            self._left = None
            if self.moved is not None:
                self.moved()
        if not role:
            return  # a server that does not tell is not asked again
        if self._refused_at is not None and now - self._refused_at > CALM_SECONDS:
            self._refused_at = None
            _log.info("%s: the store at %s serves", self._name, self._where())
        self._ask_role_later(wire, ROLE_SECONDS)

    def _where(self) -> str:
        """The server's address, as the log tells it."""
        return self._link._host_error() if self._link is not None else "its address"

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
        renewing, opening = self._renewing, self._opening
        if opening is not None and not opening.done():
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        if self._wire is not None:
            self._wire.end(redis_errors.ConnectionError(why))
        if renewing is not None:
            await asyncio.gather(renewing, return_exceptions=True)


def _seen(opening: asyncio.Task[Wire]) -> None:
    """Whoever waited for it is told; where nobody does any more, its error is no news."""
    if not opening.cancelled():
        opening.exception()
