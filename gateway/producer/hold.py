"""A producer's claim while it writes: its writer, and why it is over, as the client's exceptions say it.

A call returns when what it says stands in the store: a producer that dies loses what it was saying then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar

from gateway.client.events import (
    GatewayError,
    Refused,
    StreamCancelled,
    StreamEnded,
    StreamTaken,
    Unreachable,
)
from gateway.protocol import Event, Status, sse
from gateway.protocol.errors import HoldfastError, StoreUnavailable, TooLarge
from gateway.runtime.tasks import begin
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.record import Claim
from gateway.writing.writer import TOO_LONG, TooLong, Writer

STOP_SECONDS = 2.0  # that a block which is left by an exception waits for what is on its way
_BACKOFF_SECONDS = (0.05, 2.0)
_LARGEST_OFFSET = 9_999_999_999
T = TypeVar("T")


class Hold:
    """One claim's writer. `over` is set when nothing can be written any more."""

    def __init__(self, log: Log, claim: Claim, settings: Settings) -> None:
        self._log = log
        self._settings = settings
        self._id = claim.record.id
        self.claim = claim
        self.writer = Writer(
            log,
            claim,
            lease=settings.producer_grace,
            patience=settings.store_patience,
            max_event=settings.max_event,
            max_log=settings.max_log,
        )
        self.writing = begin(self.writer.run(), name=f"write-{self._id}")

    async def write(self, *events: Event, fields: Mapping[str, Any] | None = None) -> None:
        """Returns when these stand, all in one append; without events, when the claim is known to hold.

        Raises what `error` says.
        """
        try:
            await self.writer.put(*events, fields=fields)
        except TooLong:  # each event fits: it is the log
            await self.writer.put(TOO_LONG)
        await self.writer.flush()
        if self.writer.final is not None:
            await asyncio.wait({self.writing})
        if self.writing.done():
            raise await self.error()

    async def alive(self) -> None:
        """Raises what `error` says where the claim is known to be over. Nothing is asked."""
        if self.writing.done():
            raise await self.error()

    @property
    def most_results(self) -> int:
        """How many bytes the results of a stream's stages may take in all."""
        return self._settings.max_checkpoints

    @property
    def patience(self) -> float:
        """For how many seconds a call may wait for the store, or for its event loop."""
        return self._settings.store_patience

    async def end(self, event: Event) -> None:
        """Write the terminal event. Raises what `error` says."""
        if event.data.get("usage"):
            self.writer.paid()
        await self.writer.put(event)
        await asyncio.wait({self.writing})
        if self.writing.exception() is not None or self.writing.result() != "ok":
            raise await self.error()

    async def stop(self) -> None:
        """Write no more; what is on its way has two seconds."""
        if not self.writing.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self.writer.flush()
        self.writing.cancel()
        await asyncio.wait({self.writing})

    async def error(self) -> GatewayError:
        """Why nothing can be written any more: StreamTaken, StreamCancelled, StreamEnded or Unreachable."""
        try:
            word = self.writing.result()
        except StoreUnavailable as error:
            return Unreachable(error)
        if word == "lost":  # the store lost more than is still here; another attempt matches what stands
            return Unreachable(StoreUnavailable("the store has lost what was written"))
        return StreamTaken() if word == "fenced" else await self.ended()

    async def ended(self) -> GatewayError:
        """How the stream has ended."""
        return await ended(self._log, self._id, self._settings)

    def check(self, event: Event) -> None:
        """Raises Refused for an event that is too long, and TypeError or ValueError for what is no JSON."""
        most = self._settings.max_event
        if len(sse.encode(event, _LARGEST_OFFSET, self.claim.tag)) > most:
            raise refused(TooLarge(f"an event may have {most} bytes (GATEWAY_MAX_EVENT_BYTES)"))


async def ended(log: Log, stream_id: str, settings: Settings) -> GatewayError:
    """How a stream has ended, as an exception."""
    try:
        record, _ = await patiently(lambda: log.record(stream_id), settings.store_patience)
    except Unreachable as error:
        return error
    if record is None or not record.ended:
        return StreamEnded("")
    return StreamCancelled() if record.status is Status.CANCELLED else StreamEnded(record.status.value)


def refused(error: HoldfastError) -> GatewayError:
    """A refusal as it would be over HTTP, or Unreachable."""
    if isinstance(error, StoreUnavailable):
        return Unreachable(error)
    after = error.retry_after_seconds
    return Refused(error.status, error.problem(), None if after is None else float(after))


async def patiently(ask: Callable[[], Awaitable[T]], patience: float) -> T:
    """Ask the store until it answers. Raises Unreachable after so many seconds."""
    began, pause = monotonic(), _BACKOFF_SECONDS[0]
    while True:
        try:
            return await ask()
        except StoreUnavailable as error:
            if monotonic() > began + patience:
                raise Unreachable(error) from error
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, _BACKOFF_SECONDS[1])
