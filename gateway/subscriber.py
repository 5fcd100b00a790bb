"""The one subscriber connection of a process: SUBSCRIBE, acknowledgements, published payloads.

Acknowledgements come in the order in which the SUBSCRIBEs were sent, so each goes to the very feed that
asked, also when a stream was left and joined again meanwhile. A connection that does not even answer PING
is cut. A subscribed connection takes no AUTH (RESP2 allows it (UN)SUBSCRIBE, PING, RESET, QUIT), so when its
token has a successor it is replaced by a new one at once; that loses as little as any other loss of it: every
reader looks into the log. RESP3 would allow AUTH, at the price of another reply format and push handling.
Invariant: what is written goes through one wire, so its order is that of the calls.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from redis import exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from gateway.link import (
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
from gateway.wire import Wire, packed

DEAF_SECONDS = 10.0
UNHEARD_SECONDS = 1.0  # a connection that is being made, or an answer on its way, is no fault
_BACKOFF_SECONDS = (0.05, 2.0)
_log = logging.getLogger("holdfast.subscriber")


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

    @property
    def state(self) -> str:
        """`ended`; `idle`: nothing is wanted; `ok`; `lost`: what is wanted, not acknowledged for over 1 s."""
        if self.ended:
            return "ended"
        if not any(True for _ in self._listener.wanted()):
            return "idle"
        if self._unheard_at is None or _now() - self._unheard_at < UNHEARD_SECONDS:
            return "ok"
        return "lost"

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
                _log.warning("subscriber connection lost: %s", reason_of(error))
            finally:
                cut(link)
                await link.disconnect(nowait=True)
            if loop.time() - began > _BACKOFF_SECONDS[1]:
                backoff = _BACKOFF_SECONDS[0]
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, _BACKOFF_SECONDS[1])

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
            self._wire, self._unheard_at = None, _now()
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
        elif isinstance(answer, Exception):
            raise answer

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
