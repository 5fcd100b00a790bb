"""An HTTP answer that is an event stream, for every host: ASGI in, frames out.

A vanished reader is noticed while nothing is sent, too: one task waits for the disconnect. Any status but
200 makes EventSource give up for good, so a store out of reach, or a process with too many readers, is told
by a clean close after `retry:`. Clients of other formats take a clean close for the end: theirs is cut.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.protocol import Cursor, sse
from gateway.protocol.errors import HoldfastError, StoreUnavailable, TooManyReaders
from gateway.relay.follow import Relay, retry_line
from gateway.relay.reader import STALLED, Ending
from gateway.store.record import Record
from gateway.web.direct_reader import GONE, DirectReader
from gateway.web.headers import SECURE

HEADERS = {
    "cache-control": "no-cache, no-store, no-transform",
    "x-accel-buffering": "no",
    **SECURE,
}
TAKE = "holdfast.take"  # our ASGI extension: gives the connection to a protocol, the head having been sent


class EventStream(Response):
    """Sends the chunks as they come. `retry:` stands directly before the connection's first frame."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        headers: Mapping[str, str] | None = None,
        ending: Ending | None = None,
    ) -> None:
        super().__init__(headers={**HEADERS, **(headers or {})}, media_type="text/event-stream")
        del self.headers["content-length"]
        # Without a charset: the format is UTF-8 by definition, and the contract says exactly this.
        self.headers["content-type"] = "text/event-stream"
        self._chunks = chunks
        self._ending = ending or Ending()
        self._sent = 0  # bytes
        self._why = ""  # it ended: an Ending's word, or `gone`, `stalled`, `store`, `full`, `reset`
        self.on_end: Callable[[str, int], None] = lambda why, sent: None  # told when the body has ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run until the stream, the reader or the connection's age ends it."""
        task = asyncio.current_task()
        assert task is not None

        def cut(_: object) -> None:
            task.cancel(GONE)

        gone = asyncio.create_task(disconnected(receive), name="reader-gone")
        gone.add_done_callback(cut)
        try:
            await self._send_all(send)
        except asyncio.CancelledError as error:
            if error.args not in ((GONE,), (STALLED,)):
                raise
            self._why = self._why or ("gone" if error.args == (GONE,) else "stalled")
            task.uncancel()
        finally:
            self.on_end(self._why or "cut", self._sent)
            gone.remove_done_callback(cut)
            gone.cancel()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        started = False
        try:
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    if not started and chunk != sse.HEARTBEAT:
                        started = True
                        chunk = self._before(None) + chunk
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    self._sent += len(chunk)
            self._why = self._ending.why or "reset"  # of the sample's endpoint, which goes no further
        except (StoreUnavailable, TooManyReaders) as error:
            self._why = "store" if isinstance(error, StoreUnavailable) else "full"
            if not started and (line := self._before(error)):
                await send({"type": "http.response.body", "body": line, "more_body": True})
        if self._closes(self._why):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _before(self, error: HoldfastError | None) -> bytes:
        """What stands before the first frame, or instead of it."""
        return retry_line(error)

    def _closes(self, why: str) -> bool:
        """Whether the body is ended cleanly, having come to this end."""
        return True


class LiveStream(EventStream):
    """A stream's own frames. Where the server gives its connection away, nothing of ASGI is left of it."""

    def __init__(
        self, relay: Relay, record: Record, after: Cursor | None, headers: Mapping[str, str]
    ) -> None:
        ending = Ending()
        super().__init__(relay.follow(record.id, after, ending, record.owner), headers, ending)
        self._of = relay, record, after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run until the end, or hand the connection over."""
        take = scope.get("extensions", {}).get(TAKE)
        if take is None or scope["http_version"] != "1.1":
            await super().__call__(scope, receive, send)
            return
        self.headers["connection"] = "close"  # it is not given back
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        relay, record, after = self._of
        DirectReader(relay, record.id, after, self.on_end, record.owner).begin(take)


class CutStream(EventStream):
    """For clients to whom a clean close is the end: before the stream's own end, the connection is cut.

    The server cuts a body that was begun and never ended (a chunked one, without its last chunk).
    """

    def _before(self, error: HoldfastError | None) -> bytes:
        return b""

    def _closes(self, why: str) -> bool:
        return why == "terminal"


def _no_mistake(record: logging.LogRecord) -> bool:
    """A cut is no mistake, though uvicorn takes it for one."""
    return record.msg != "ASGI callable returned without completing response."


logging.getLogger("uvicorn.error").addFilter(_no_mistake)


async def sent_away(error: HoldfastError) -> AsyncGenerator[bytes, None]:
    """The chunks of a reader who is to come back later. Raises the error at the first."""
    raise error
    yield b""


async def disconnected(receive: Receive) -> None:
    """Until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
