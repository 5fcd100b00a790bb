"""The claim of a producer while it writes, its writer, and the exceptions of the client for its end.

A call returns when the store has its events. If a producer dies, only the events of unfinished calls are
lost.
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

STOP_SECONDS = 2.0  # how long `stop` waits for events that are being written
_BACKOFF_SECONDS = (0.05, 2.0)
_LARGEST_OFFSET = 9_999_999_999
T = TypeVar("T")


class Hold:
    """The writer of one claim. When `writing` is done, nothing can be written any more."""

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
        """Write these events in one append, and return when the log contains them.

        Without events, return when the store has confirmed the claim. Raises the exception that `error`
        returns.
        """
        try:
            await self.writer.put(*events, fields=fields)
        except TooLong:  # each event fits, so the log is too long
            await self.writer.put(TOO_LONG)
        await self.writer.flush()
        if self.writer.final is not None:
            await asyncio.wait({self.writing})
        if self.writing.done():
            raise await self.error()

    async def alive(self) -> None:
        """Raise the exception that `error` returns if the claim is known to be over.

        The store is not asked.
        """
        if self.writing.done():
            raise await self.error()

    @property
    def most_results(self) -> int:
        """The most bytes that the results of a stream's stages may take in total."""
        return self._settings.max_checkpoints

    @property
    def patience(self) -> float:
        """How many seconds a call may wait for the store, or for its event loop."""
        return self._settings.store_patience

    async def end(self, event: Event) -> None:
        """Write the terminal event. Raises the exception that `error` returns."""
        if event.data.get("usage"):
            self.writer.paid()
        await self.writer.put(event)
        await asyncio.wait({self.writing})
        if self.writing.exception() is not None or self.writing.result() != "ok":
            raise await self.error()

    async def stop(self) -> None:
        """Stop writing. First wait up to STOP_SECONDS for events that are being written."""
        if not self.writing.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self.writer.flush()
        self.writing.cancel()
        await asyncio.wait({self.writing})

    async def error(self) -> GatewayError:
        """Return the reason why nothing more can be written.

        It is a StreamTaken, StreamCancelled, StreamEnded or Unreachable.
        """
        try:
            word = self.writing.result()
        except StoreUnavailable as error:
            return Unreachable(error)
        # The store lost more than is in memory. Another attempt matches what the log still has.
        if word == "lost":
            return Unreachable(StoreUnavailable("the store has lost what was written"))
        return StreamTaken() if word == "fenced" else await self.ended()

    async def ended(self) -> GatewayError:
        """Return an exception that tells how the stream has ended."""
        return await ended(self._log, self._id, self._settings)

    def check(self, event: Event) -> None:
        """Raise Refused for an event that is too long.

        Raises TypeError or ValueError for data that is not JSON.
        """
        most = self._settings.max_event
        if len(sse.encode(event, _LARGEST_OFFSET, self.claim.tag)) > most:
            raise refused(TooLarge(f"an event may have {most} bytes (GATEWAY_MAX_EVENT_BYTES)"))


async def ended(log: Log, stream_id: str, settings: Settings) -> GatewayError:
    """Return an exception that tells how a stream has ended."""
    try:
        record, _ = await patiently(lambda: log.record(stream_id), settings.store_patience)
    except Unreachable as error:
        return error
    if record is None or not record.ended:
        return StreamEnded("")
    return StreamCancelled() if record.status is Status.CANCELLED else StreamEnded(record.status.value)


def refused(error: HoldfastError) -> GatewayError:
    """Convert an error to the Refused that a client gets over HTTP, or to Unreachable."""
    if isinstance(error, StoreUnavailable):
        return Unreachable(error)
    after = error.retry_after_seconds
    return Refused(error.status, error.problem(), None if after is None else float(after))


async def patiently(ask: Callable[[], Awaitable[T]], patience: float) -> T:
    """Call `ask` until the store answers. Raises Unreachable after `patience` seconds."""
    began, pause = monotonic(), _BACKOFF_SECONDS[0]
    while True:
        try:
            return await ask()
        except StoreUnavailable as error:
            if monotonic() > began + patience:
                raise Unreachable(error) from error
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, _BACKOFF_SECONDS[1])
