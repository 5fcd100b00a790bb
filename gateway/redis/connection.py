"""One pipelined connection to Redis, shared by all tasks of a process.

Commands of concurrent tasks are written together, and the answers are matched to the commands in order. So
the number of connections does not grow with readers or streams. Before a token expires, the next token is
sent on the live connection, by an AUTH between other commands.

If the server is not the primary any more, the connection is closed, and a new connection is made to the
address that the server's name has now. Such a server refuses a write, or says that it is a replica when it is
asked for its role every two seconds. How often this happens is limited, with jitter.

Invariant: answers belong to the pending exchanges in order. A connection that breaks fails all of them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from redis import exceptions as redis_errors

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.commands import Command, Commands, checked
from gateway.redis.connect import (
    TIMEOUT_SECONDS,
    Credentials,
    Endpoint,
    Place,
    Token,
    place_of,
    reason_of,
)
from gateway.redis.refusals import is_elsewhere, is_forbidden, told_by_hello, word_of
from gateway.redis.replies import Answer, Pending
from gateway.redis.resp import Wire, packed
from gateway.runtime.backoff import Backoff

BROKEN = (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError)
# An answer of one of these classes refuses a command. Any other error ends the connection. The second class
# is the refusal LOADING.
_ANSWERS = (redis_errors.ResponseError, redis_errors.BusyLoadingError)
_OPENS = 2  # how many connects of one call may fail
# The pauses in seconds before each try of a call. The second try follows at once, because the connection may
# have been closed while it was idle. The later tries are for a server that closes connections again and again
# (client eviction, a proxy that restarts).
_PAUSES_SECONDS = (0.0, 0.0, 0.1, 0.2, 0.4)
# The shortest and the longest pause after a failed connect.
_REOPEN_SECONDS = (0.05, 0.2)
# The shortest and the longest pause between closing two connections because of the server's role.
_LEAVE_SECONDS = (0.1, 1.0)
# After this many seconds without a refusal, the next refusal counts as the first.
CALM_SECONDS = 10.0
ROLE_SECONDS = 2.0  # time between two requests for the server's role

_log = logging.getLogger("holdfast.connection")


class Connection(Commands):
    """Commands over one connection. A try may take `timeout` seconds, and a call up to five tries."""

    def __init__(self, where: str | Place, *, name: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._place = place_of(where)
        self._name = name
        self._timeout = timeout
        self._address = "its address"  # address of the last server, for the log
        self._wire: Wire | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[Wire] | None = None
        self._reopening = Backoff(*_REOPEN_SECONDS, forget=CALM_SECONDS)
        self._leaving = Backoff(*_LEAVE_SECONDS, forget=CALM_SECONDS)
        # The last connection that was closed because of its server's role.
        self._left: Wire | None = None
        self._forbidden_at = float("-inf")  # when a server last refused a command with NOPERM
        self._refused_at: float | None = None  # when a server last said that it is not the primary
        # Called when a primary was found after a connection was closed because of the server's role. If it is
        # set, the primary is searched at once, and not only by the next call.
        self.moved: Callable[[], None] | None = None
        # Why the last connect failed. The log has each reason once.
        self._complaint = ""
        self._closed = False
        self._pending = Pending(timeout, self._overdue)

    async def answers(self, commands: list[Command]) -> list[Answer]:
        """Do what `Commands.answers` says. The commands are sent up to five times."""
        # An exchange without commands would take the answer of the next exchange.
        if not commands:
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
            # The connection is half open, or too slow to be useful.
            except TimeoutError as error:
                raise StoreUnavailable from error
            except BROKEN as error:
                # The connection may be alive: the server may have refused our credentials.
                if wire is not None:
                    wire.end(error)
                if last or (wire is None and attempt >= _OPENS):
                    raise StoreUnavailable from error
            except redis_errors.ResponseError as error:  # the server has refused the handshake
                checked([error])
        raise AssertionError("unreachable")

    def slot(self, key: str) -> int:
        """Return 0, because all keys have the same slot here."""
        return 0

    def post(self, key: str, command: Command, answered: Callable[[Answer], None]) -> bool:
        """Do what `Commands.post` says."""
        if self._wire is None:
            return False
        whole = packed(command)  # may raise: then nothing was sent
        self._wire.send(whole, at_once=True)
        self._pending.add(1, lambda answers, error: answered(error or answers[0]))
        return True

    async def by_node(self, keys: list[str]) -> list[list[str]]:
        """Return one group, because all keys are on this server."""
        return [keys] if keys else []

    async def nodes(self) -> Sequence[Commands]:
        """Return only this connection."""
        return [self]

    async def close(self) -> None:
        """Do what `Commands.close` says."""
        self._closed = True
        await self.let_go("closed")

    async def _exchange(self, wire: Wire, commands: list[Command]) -> list[Answer]:
        if wire is not self._wire:
            raise redis_errors.ConnectionError("the connection has ended")
        packed_commands = [packed(command) for command in commands]  # may raise: then nothing was sent
        done: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()

        def answered(answers: list[Answer], error: Exception | None) -> None:
            if done.done():  # the caller was cancelled
                return
            if error is None:
                done.set_result(answers)
            else:
                done.set_exception(error)

        wire.send(*packed_commands, at_once=not self._pending)
        self._pending.add(len(commands), answered)
        answers = await done
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, _ANSWERS):
                raise answer
        return answers

    async def _opened(self) -> Wire:
        """Connect, once for all callers that wait for it. So a dead server gets no storm of connects.

        If a caller is cancelled, the connect goes on for the other callers. Raises TimeoutError, or what the
        connect raises.
        """
        opening = self._begin_opening()
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if opening.cancelled() and not (caller and caller.cancelling()):
                raise StoreUnavailable from None  # this connection was closed meanwhile
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
            wire, token = await self._connect()
        wire.serve(self._pending.answered, self._lost, refused=self._refused)
        self._reopening.reset()
        self._wire = wire
        if token is not None and self._place.credentials is not None:
            renewing = self._renew(wire, self._place.credentials, token)
            self._renewing = asyncio.create_task(renewing, name="redis-renew")
        self._ask_role_later(wire, 0.0 if self._refused_at is not None else ROLE_SECONDS)
        return wire

    async def _connect(self) -> tuple[Wire, Token | None]:
        if self._closed:
            raise StoreUnavailable
        endpoint = Endpoint(self._place, name=self._name)
        self._address = endpoint.address
        try:
            wire, token = await endpoint.open()
        except BaseException as error:
            self._complain(error)
            raise
        if self._closed:
            wire.end(redis_errors.ConnectionError("closed"))
            raise StoreUnavailable
        self._complaint = ""
        return wire, token

    def _complain(self, error: BaseException) -> None:
        """Log why there is no connection. The same reason is logged again only after a successful connect."""
        reason = reason_of(error)
        if isinstance(error, (*BROKEN, redis_errors.RedisError)) and reason != self._complaint:
            self._complaint = reason
            _log.warning("%s has no connection to the store at %s: %s", self._name, self._address, reason)

    async def _renew(self, wire: Wire, credentials: Credentials, token: Token) -> None:
        """Send each new token. If the server refuses it, the old token is used until it expires."""
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
        """Handle a refused command: the server may not be the primary any more."""
        if is_elsewhere(error):
            self._leave(word_of(error))
        elif is_forbidden(error):
            before, self._forbidden_at = self._forbidden_at, asyncio.get_running_loop().time()
            if self._forbidden_at - before > CALM_SECONDS:
                _log.warning(
                    "%s: the store at %s forbids its user a command (NOPERM)", self._name, self._address
                )

    def _leave(self, why: str) -> None:
        """Close this connection, but not too often.

        The next one uses the present address of the server's name. Answers that have arrived are delivered
        first. Calls that still wait are repeated on the next connection.
        """
        wire, loop = self._wire, asyncio.get_running_loop()
        now = loop.time()
        if self._refused_at is None:
            _log.warning("%s leaves the store at %s and asks for it anew: %s", self._name, self._address, why)
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
        """Ask for the server's role, by HELLO.

        Every user may send it, and without arguments it changes nothing.
        """
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
            self._ask_role_later(wire, self._leaving.left(now))  # if it was too early to close the connection
            return
        if self._left is not None:
            self._left = None
            if self.moved is not None:
                self.moved()
        if not role:
            return  # a server that does not report its role is not asked again
        if self._refused_at is not None and now - self._refused_at > CALM_SECONDS:
            self._refused_at = None
            _log.info("%s: the store at %s serves", self._name, self._address)
        self._ask_role_later(wire, ROLE_SECONDS)

    def _overdue(self) -> None:
        if self._wire is not None:
            self._wire.end(redis_errors.ConnectionError("no answer in time"))

    def _lost(self, reason: BaseException) -> None:
        """Fail every call that waits for an answer, because the connection has ended."""
        self._wire = None
        self._pending.fail(str(reason))
        renewing, self._renewing = self._renewing, None
        if renewing is not None and renewing is not asyncio.current_task():
            renewing.cancel()

    async def let_go(self, why: str) -> None:
        """End the connection, and wait for the tasks that belong to it.

        A later call opens a new connection.
        """
        renewing, opening = self._renewing, self._opening
        if opening is not None and not opening.done():
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        if self._wire is not None:
            self._wire.end(redis_errors.ConnectionError(why))
        if renewing is not None:
            await asyncio.gather(renewing, return_exceptions=True)


def _seen(opening: asyncio.Task[Wire]) -> None:
    """Mark the exception as retrieved. If no caller waits for it, asyncio would log it."""
    if not opening.cancelled():
        opening.exception()
