"""The one subscriber connection of a process: SUBSCRIBE, acknowledgements, published payloads.

Acknowledgements come in the order in which the SUBSCRIBEs were sent. So each acknowledgement goes to the feed
that asked for it, also when a stream was left and joined again meanwhile. A connection that does not even
answer PING is ended. When logs grow and a feed hears no block although it is acknowledged, the connection
leads to a server to which nobody publishes any more. Then the connection is made anew to where the server's
name leads now, but not too often.

A subscribed connection takes no AUTH: RESP2 allows only (UN)SUBSCRIBE, PING, RESET and QUIT. So when there is
a newer token, a new connection replaces this one at once. That loses nothing, because every reader reads the
log then. RESP3 would allow AUTH, but has another format of replies and needs handling of pushes.

Invariant: all that is written goes through one `Wire`, so it has the order of the calls.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from redis import exceptions as redis_errors
from redis.exceptions import RedisError

from gateway.protocol.errors import stack_of
from gateway.redis.connect import (
    TIMEOUT_SECONDS,
    Endpoint,
    Place,
    Token,
    Where,
    place_of,
    reason_of,
)
from gateway.redis.resp import Wire, packed
from gateway.runtime.backoff import Backoff

DEAF_SECONDS = 10.0  # a connection on which nothing comes for so long is ended
UNHEARD_SECONDS = 1.0  # a subscription may wait so long for its acknowledgement before the state is `lost`
MISTRUST_SECONDS = 15.0  # the state stays `unheard` so long after the last sign, unless a block is heard
_BACKOFF_SECONDS = (0.05, 2.0)
# The shortest and the longest pause between leaving two connections. Each time every reader reads the log.
_LEAVE_SECONDS = (2.0, 15.0)
_CALM_SECONDS = 60.0  # after so long without leaving a connection the next time counts as the first
_log = logging.getLogger("holdfast.subscriber")


class Left(redis_errors.ConnectionError):
    """Why a connection was ended that works but to whose server nobody publishes."""


class Subscribed(Protocol):
    """What asks for a channel."""

    @property
    def channel(self) -> bytes:
        """The channel's name."""

    def acknowledge(self) -> None:
        """The server has acknowledged the SUBSCRIBE that was sent for this one."""


class Listener(Protocol):
    """The owner of the subscriber, which gets all that is heard."""

    def wanted(self) -> Iterable[Subscribed]:
        """All feeds that a new connection must subscribe to."""

    def heard(self, channel: bytes, payload: bytes) -> None:
        """This was published on a channel."""

    def deliver(self) -> None:
        """All payloads that have come together were handed to `heard`."""

    def lost(self) -> None:
        """The connection has ended: what was published since may be missed."""


class Subscriber:
    """The subscriber connection. The task of `run` holds it while the listener wants anything."""

    def __init__(self, where: Where, listener: Listener) -> None:
        self._where = where
        self._listener = listener
        self._wire: Wire | None = None
        self._called = asyncio.Event()
        self._unacknowledged: deque[Subscribed] = deque()
        self._heard_at = 0.0  # when anything came last
        self._outdated = False  # there is a newer token than the connection's
        self.ended = False  # the listener serves nobody any more
        self._unheard_at: float | None = None  # since when something wanted is not acknowledged
        self.mistrusted_at: float | None = None  # when a log was last seen to grow and no block was heard
        self._still: Callable[[], bool] | None = None  # asked at the answer to PING: is still no block heard?
        self._leaving = Backoff(*_LEAVE_SECONDS, forget=_CALM_SECONDS)
        self._leave_due: asyncio.TimerHandle | None = None
        self._complaint = ""  # why there is no connection: the log says it once

    @property
    def state(self) -> str:
        """`ended`, `idle`, `ok`, `lost` or `unheard`.

        `idle`: nothing is wanted. `lost`: something wanted has not been acknowledged for over 1 s. `unheard`:
        all is acknowledged, and logs grow, but no block is heard.
        """
        if self.ended:
            return "ended"
        if not any(True for _ in self._listener.wanted()):
            return "idle"
        if self._unheard_at is not None and _now() - self._unheard_at >= UNHEARD_SECONDS:
            return "lost"
        mistrusted = self.mistrusted_at is not None and _now() - self.mistrusted_at < MISTRUST_SECONDS
        return "unheard" if mistrusted else "ok"

    def subscribe(self, feed: Subscribed) -> None:
        """Ask for a feed. `feed.acknowledge` is called when the server has answered."""
        self._unheard_at = self._unheard_at or _now()
        self._send("SUBSCRIBE", feed)
        self._called.set()

    def unsubscribe(self, feed: Subscribed) -> None:
        """The feed is not wanted any more."""
        self._send("UNSUBSCRIBE", feed)

    def pulse(self) -> None:
        """Called twice a second: a connection that is silent for long is sent a PING, and later ended."""
        if self._wire is None:
            return
        silent = _now() - self._heard_at
        if silent > DEAF_SECONDS:
            self._wire.end(redis_errors.ConnectionError("no sign of life"))
        elif silent > DEAF_SECONDS / 2:
            self._send("PING")

    def mistrust(self, still: Callable[[], bool]) -> None:
        """Logs grow and no block is heard. Leave the connection where `still` says so after a PING.

        All that was published before the server answers the PING comes before that answer.
        """
        if self._wire is not None and self._still is None:
            self._still = still
            self._send("PING")

    def trust(self) -> None:
        """A block was heard again."""
        self.mistrusted_at = None
        _log.info("what is published is heard again")

    def leave(self, why: str, still: Callable[[], bool] = lambda: True) -> None:
        """Replace the connection by one to where the server's name leads now, as soon as is allowed.

        `still` is asked before a connection is left that had to wait for this.
        """
        wire, loop = self._wire, asyncio.get_running_loop()
        if wire is None or self._leave_due is not None:
            return  # a new connection is under way

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
        """Hold a connection while anything is wanted. Back off, with jitter, while no connection lasts."""
        loop = asyncio.get_running_loop()
        backoff = _BACKOFF_SECONDS[0]
        while True:
            if not any(True for _ in self._listener.wanted()):
                self._called.clear()
                self._unheard_at = None
                await self._called.wait()
            began = loop.time()
            place, self._outdated = place_of(self._where), False
            endpoint = Endpoint(place, name="holdfast-hub")
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    wire, token = await endpoint.open()
                await self._serve(wire, place, token)
            except (RedisError, OSError) as error:
                if self._outdated:
                    _log.info("subscriber connection replaced: there is a new token")
                    continue
                self._complain(str(error) if isinstance(error, Left) else reason_of(error))
            except Exception as error:  # this task must go on: without it no reader here hears anything
                self._complain(stack_of(error))
            if loop.time() - began > _BACKOFF_SECONDS[1]:
                backoff = _BACKOFF_SECONDS[0]
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, _BACKOFF_SECONDS[1])

    def _complain(self, reason: str) -> None:
        """Log why a connection has ended, and the same reason again only after an acknowledgement."""
        if reason != self._complaint:
            self._complaint = reason
            _log.warning("subscriber connection lost: %s", reason)

    async def _serve(self, wire: Wire, place: Place, token: Token | None) -> None:
        """Subscribe, and hand on what is published, until the connection ends. Raises why it has ended."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        self._heard_at = _now()
        self._unacknowledged.clear()

        def lost(reason: BaseException) -> None:
            if not ended.done():
                ended.set_exception(reason)

        wire.serve(self._answered, lost, self._listener.deliver)
        self._wire = wire
        wanted = list(self._listener.wanted())
        self._unheard_at = self._unheard_at if wanted else None
        for feed in wanted:
            self._send("SUBSCRIBE", feed)
        renewing: asyncio.Task[None] | None = None
        if token is not None:
            renewing = asyncio.create_task(self._replace(wire, place, token), name="hub-renew")
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
        """The answer to a PING has come: all that was published before the PING has been heard."""
        still, self._still = self._still, None
        if still is not None and still():
            self.mistrusted_at = _now()
            self.leave("logs grow and no block is heard", still)

    async def _replace(self, wire: Wire, place: Place, token: Token) -> None:
        """End the connection as soon as there is a newer token."""
        assert place.credentials is not None
        await place.credentials.after(token)
        self._outdated = True
        wire.end(redis_errors.ConnectionError("there is a newer token"))

    def _send(self, command: str, feed: Subscribed | None = None) -> None:
        if self._wire is None:
            return  # a new connection subscribes to all wanted feeds
        if feed is not None and command == "SUBSCRIBE":
            self._unacknowledged.append(feed)
        self._wire.send(packed((command, feed.channel) if feed else (command,)))


def _now() -> float:
    return asyncio.get_running_loop().time()
