"""The one subscriber connection of a process: SUBSCRIBE, acknowledgements, published payloads.

Acknowledgements come in the order in which the SUBSCRIBEs were sent. So each acknowledgement goes to the feed
that asked for it, even if the process has left a stream and joined it again meanwhile. A connection that does
not answer PING is ended. If logs grow and an acknowledged feed receives no block, the connection leads to a
server to which nobody publishes any more. Then a new connection is made to the address that the server's name
has now, but not too often.

A subscribed connection accepts no AUTH: RESP2 allows only (UN)SUBSCRIBE, PING, RESET and QUIT. So when there
is a newer token, a new connection replaces this one at once. No event is lost, because every reader then
reads the log. RESP3 would allow AUTH, but has another format of replies and needs handling of pushes.

Invariant: all writes go through one `Wire`, so they are in the order of the calls.
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

# A connection is ended when nothing was received on it for this long.
DEAF_SECONDS = 10.0
# A subscription that waits longer for its acknowledgement makes the state `lost`.
UNHEARD_SECONDS = 1.0
# The state stays `unheard` for this long after the last sign, unless a block is received.
MISTRUST_SECONDS = 15.0
_BACKOFF_SECONDS = (0.05, 2.0)
# The shortest and the longest pause between closing two connections. Each close makes every reader read the
# log.
_LEAVE_SECONDS = (2.0, 15.0)
# After this long without closing a connection, the next close counts as the first.
_CALM_SECONDS = 60.0
_log = logging.getLogger("holdfast.subscriber")


class Left(redis_errors.ConnectionError):
    """The reason why a working connection was closed: nobody publishes to its server."""


class Subscribed(Protocol):
    """An object that subscribes to a channel: a feed or a bell."""

    @property
    def channel(self) -> bytes:
        """The channel's name."""

    def acknowledge(self) -> None:
        """Note that the server has acknowledged the SUBSCRIBE for this object."""


class Listener(Protocol):
    """The owner of the subscriber, which gets everything that is received."""

    def wanted(self) -> Iterable[Subscribed]:
        """Return all feeds that a new connection must subscribe to."""

    def heard(self, channel: bytes, payload: bytes) -> None:
        """Handle a payload that was published on a channel."""

    def deliver(self) -> None:
        """Handle the end of a batch: all payloads that arrived together were passed to `heard`."""

    def lost(self) -> None:
        """Note that the connection has ended: later publishes may be missed."""


class Subscriber:
    """The subscriber connection.

    The task of `run` keeps the connection open while the listener wants a channel.
    """

    def __init__(self, where: Where, listener: Listener) -> None:
        self._where = where
        self._listener = listener
        self._wire: Wire | None = None
        self._called = asyncio.Event()
        self._unacknowledged: deque[Subscribed] = deque()
        self._heard_at = 0.0  # when something was last received
        self._outdated = False  # there is a newer token than that of the connection
        self.ended = False  # the listener has stopped serving readers
        # Since when a wanted channel has had no acknowledgement.
        self._unheard_at: float | None = None
        # When a log was last known to grow while no block was received.
        self.mistrusted_at: float | None = None
        # Called at the answer to PING: returns whether there is still no block.
        self._still: Callable[[], bool] | None = None
        self._leaving = Backoff(*_LEAVE_SECONDS, forget=_CALM_SECONDS)
        self._leave_due: asyncio.TimerHandle | None = None
        # Why there is no connection. The log has each reason once.
        self._complaint = ""

    @property
    def state(self) -> str:
        """The state: `ended`, `idle`, `ok`, `lost` or `unheard`.

        `idle`: no channel is wanted. `lost`: a wanted channel has not been acknowledged for over 1 s.
        `unheard`: all channels are acknowledged, and logs grow, but no block is received.
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
        """Subscribe to a feed's channel. `feed.acknowledge` is called when the server has answered."""
        self._unheard_at = self._unheard_at or _now()
        self._send("SUBSCRIBE", feed)
        self._called.set()

    def unsubscribe(self, feed: Subscribed) -> None:
        """Unsubscribe a feed that is not wanted any more."""
        self._send("UNSUBSCRIBE", feed)

    def pulse(self) -> None:
        """Check the connection; called twice a second.

        A connection that is silent for long is sent a PING, and is later ended.
        """
        if self._wire is None:
            return
        silent = _now() - self._heard_at
        if silent > DEAF_SECONDS:
            self._wire.end(redis_errors.ConnectionError("no sign of life"))
        elif silent > DEAF_SECONDS / 2:
            self._send("PING")

    def mistrust(self, still: Callable[[], bool]) -> None:
        """Check the connection with a PING, because logs grow and no block is received.

        After the answer, the connection is replaced if `still` returns True. Everything that was published
        before the answer to the PING arrives before that answer.
        """
        if self._wire is not None and self._still is None:
            self._still = still
            self._send("PING")

    def trust(self) -> None:
        """Trust the connection again, because a block was received."""
        self.mistrusted_at = None
        _log.info("what is published is heard again")

    def leave(self, why: str, still: Callable[[], bool] = lambda: True) -> None:
        """Replace the connection by one to the present address of the server's name, as soon as is allowed.

        If the connection has to wait for this, `still` is called before it is closed.
        """
        wire, loop = self._wire, asyncio.get_running_loop()
        if wire is None or self._leave_due is not None:
            return  # a new connection is already being made

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
        """Keep a connection open while a channel is wanted.

        Back off, with jitter, while no connection lasts.
        """
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
            # This task must go on: without it no reader of this process receives blocks.
            except Exception as error:
                self._complain(stack_of(error))
            if loop.time() - began > _BACKOFF_SECONDS[1]:
                backoff = _BACKOFF_SECONDS[0]
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, _BACKOFF_SECONDS[1])

    def _complain(self, reason: str) -> None:
        """Log why a connection has ended. The same reason is logged again only after an acknowledgement."""
        if reason != self._complaint:
            self._complaint = reason
            _log.warning("subscriber connection lost: %s", reason)

    async def _serve(self, wire: Wire, place: Place, token: Token | None) -> None:
        """Subscribe, and pass on what is published, until the connection ends.

        Raises the reason of the end.
        """
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
        """Handle the answer to a PING: everything that was published before the PING has been received."""
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
