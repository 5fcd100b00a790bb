"""The one subscriber connection of a process: SUBSCRIBE, acknowledgements, published payloads.

Acknowledgements come in the order in which the SUBSCRIBEs were sent, so each goes to the very feed that
asked, also when a stream was left and joined again meanwhile. A connection that does not even answer PING
is cut. Where the log moves and an acknowledged feed hears nothing of it, the connection is with a server to
which nobody publishes any more: it is left and the name asked again, not too often.
A subscribed connection takes no AUTH (RESP2 allows it (UN)SUBSCRIBE, PING, RESET, QUIT), so when its token
has a successor it is replaced by a new one at once. That loses as little as any other loss of it: every
reader looks into the log. RESP3 would allow AUTH, at the price of another reply format and push handling.
Invariant: what is written goes through one wire, so its order is that of the calls.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from redis import exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from gateway.protocol.errors import stack_of
from gateway.redis.connect import (
    TIMEOUT_SECONDS,
    Place,
    Token,
    Where,
    connection_to,
    cut,
    place_of,
    reason_of,
    token_of,
)
from gateway.redis.resp import Wire, packed
from gateway.runtime.backoff import Backoff

DEAF_SECONDS = 10.0
UNHEARD_SECONDS = 1.0  # a connection that is being made, or an answer on its way, is no fault
MISTRUST_SECONDS = 15.0  # after the last sign that nothing is heard, while nothing speaks for the contrary
_BACKOFF_SECONDS = (0.05, 2.0)
_LEAVE_SECONDS = (2.0, 15.0)  # between two connections that are left, each of which makes every reader look
_CALM_SECONDS = 60.0  # without leaving one: the next time is a first time
_log = logging.getLogger("holdfast.subscriber")


class Left(redis_errors.ConnectionError):
    """A connection that works and is of no use."""


class Feed(Protocol):
    """What is subscribed to."""

    @property
    def channel(self) -> bytes:
        """The channel's name."""

    def acknowledge(self) -> None:
        """The server has answered this feed's SUBSCRIBE."""


class Listener(Protocol):
    """Whom the subscriber serves."""

    def wanted(self) -> Iterable[Feed]:
        """All feeds that a new connection must subscribe to."""

    def heard(self, channel: bytes, payload: bytes) -> None:
        """Something was published."""

    def deliver(self) -> None:
        """What was published together has been heard."""

    def lost(self) -> None:
        """The connection has ended: whatever was published since is unknown."""


class Subscriber:
    """`run` is its task; it holds a connection while anything is wanted."""

    def __init__(self, where: Where, listener: Listener) -> None:
        self._where = where
        self._listener = listener
        self._wire: Wire | None = None
        self._called = asyncio.Event()
        self._unacknowledged: deque[Feed] = deque()
        self._heard_at = 0.0
        self._outdated = False
        self.ended = False  # whom it serves serves nobody any more
        self._unheard_at: float | None = None  # since when something wanted is not acknowledged
        self.mistrusted_at: float | None = None  # when the log has last moved and nothing was heard
        self._still: Callable[[], bool] | None = None  # asked when the sign of life has come: still nothing?
        self._leaving = Backoff(*_LEAVE_SECONDS, forget=_CALM_SECONDS)
        self._leave_due: asyncio.TimerHandle | None = None
        self._complaint = ""  # why there is no connection; said once

    @property
    def state(self) -> str:
        """`ended`, `idle`, `ok`, `lost` or `unheard`.

        `idle`: nothing is wanted. `lost`: what is wanted is not acknowledged for over 1 s. `unheard`: it is
        acknowledged, and the log moves without a word of it.
        """
        if self.ended:
            return "ended"
        if not any(True for _ in self._listener.wanted()):
            return "idle"
        if self._unheard_at is not None and _now() - self._unheard_at >= UNHEARD_SECONDS:
            return "lost"
        mistrusted = self.mistrusted_at is not None and _now() - self.mistrusted_at < MISTRUST_SECONDS
        return "unheard" if mistrusted else "ok"

    def subscribe(self, feed: Feed) -> None:
        """Ask for a feed; `feed.acknowledge` is called when the server has answered."""
        self._unheard_at = self._unheard_at or _now()
        self._send("SUBSCRIBE", feed)
        self._called.set()

    def unsubscribe(self, feed: Feed) -> None:
        """The last reader has left."""
        self._send("UNSUBSCRIBE", feed)

    def pulse(self) -> None:
        """Called now and then: a connection long silent is asked for a sign of life, then cut."""
        if self._wire is None:
            return
        silent = _now() - self._heard_at
        if silent > DEAF_SECONDS:
            self._wire.end(redis_errors.ConnectionError("no sign of life"))
        elif silent > DEAF_SECONDS / 2:
            self._send("PING")

    def mistrust(self, still: Callable[[], bool]) -> None:
        """The log moves and nothing is heard of it. Where that is `still` so after a sign of life, leave.

        What was published before the server answers PING has come before its answer.
        """
        if self._wire is not None and self._still is None:
            self._still = still
            self._send("PING")

    def trust(self) -> None:
        """Something was heard again."""
        self.mistrusted_at = None
        _log.info("what is published is heard again")

    def leave(self, why: str, still: Callable[[], bool] = lambda: True) -> None:
        """Replace the connection by one to where the name leads now: at once, or as soon as it may be.

        `still` is asked before a leave that had to wait.
        """
        wire, loop = self._wire, asyncio.get_running_loop()
        if wire is None or self._leave_due is not None:
            return  # a new one is on its way

        def now() -> None:
            self._leave_due = None
            if wire is self._wire and still():
                self._leaving.tried(loop.time())
                wire.end(Left(why))

        if left := self._leaving.left(loop.time()):
            self._leave_due = loop.call_later(left, now)
        else:
            now()

    async def run(self) -> None:
        """Connect while anybody follows; back off, with jitter, while no connection lasts."""
        loop = asyncio.get_running_loop()
        backoff = _BACKOFF_SECONDS[0]
        while True:
            if not any(True for _ in self._listener.wanted()):
                self._called.clear()
                self._unheard_at = None
                await self._called.wait()
            began = loop.time()
            place, self._outdated = place_of(self._where), False
            link = connection_to(place, name="holdfast-hub")
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await link.connect()
                await self._serve(link, place)
            except (RedisError, OSError) as error:
                if self._outdated:
                    _log.info("subscriber connection replaced: there is a new token")
                    continue
                self._complain(str(error) if isinstance(error, Left) else reason_of(error))
            except Exception as error:  # without this task nobody here would hear anything
                self._complain(stack_of(error))
            finally:
                cut(link)
                await link.disconnect(nowait=True)
            if loop.time() - began > _BACKOFF_SECONDS[1]:
                backoff = _BACKOFF_SECONDS[0]
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, _BACKOFF_SECONDS[1])

    def _complain(self, reason: str) -> None:
        """Say why a connection has ended; no second time before a subscription is acknowledged."""
        if reason != self._complaint:
            self._complaint = reason
            _log.warning("subscriber connection lost: %s", reason)

    async def _serve(self, link: AbstractConnection, place: Place) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        self._heard_at = _now()
        self._unacknowledged.clear()

        def lost(reason: BaseException) -> None:
            if not ended.done():
                ended.set_exception(reason)

        self._wire = wire = Wire(link, self._answered, lost, self._listener.deliver)
        wanted = list(self._listener.wanted())
        self._unheard_at = self._unheard_at if wanted else None
        for feed in wanted:
            self._send("SUBSCRIBE", feed)
        renewing: asyncio.Task[None] | None = None
        if (token := token_of(link)) is not None:
            renewing = asyncio.create_task(self._replace(link, place, token), name="hub-renew")
        try:
            await ended
        finally:
            self._wire, self._still, self._unheard_at = None, None, _now()
            wire.end(redis_errors.ConnectionError("let go"))
            ended.cancel()
            self._listener.lost()
            if renewing is not None:
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)

    def _answered(self, answer: Any) -> None:
        self._heard_at = _now()
        kind = answer[0] if isinstance(answer, list) else b""
        if kind == b"message":
            self._listener.heard(answer[1], answer[2])
        elif kind == b"subscribe":
            self._unacknowledged.popleft().acknowledge()
            self._unheard_at = _now() if self._unacknowledged else None
            self._complaint = ""
        elif kind == b"pong":
            self._prove()
        elif isinstance(answer, Exception):
            raise answer

    def _prove(self) -> None:
        """A sign of life: all that was published before it was asked for has been heard."""
        still, self._still = self._still, None
        if still is not None and still():
            self.mistrusted_at = _now()
            self.leave("the log moves and nothing is heard", still)

    async def _replace(self, link: AbstractConnection, place: Place, token: Token) -> None:
        assert place.credentials is not None
        await place.credentials.after(token)
        self._outdated = True
        cut(link)

    def _send(self, command: str, feed: Feed | None = None) -> None:
        if self._wire is None:
            return  # a new connection subscribes to all feeds itself
        if feed is not None and command == "SUBSCRIBE":
            self._unacknowledged.append(feed)
        self._wire.send(packed((command, feed.channel) if feed else (command,)))


def _now() -> float:
    return asyncio.get_running_loop().time()
