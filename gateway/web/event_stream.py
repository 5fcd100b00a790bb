"""An HTTP answer that is an event stream, sent by ASGI, for every host.

A client that has gone is noticed while nothing is sent, too: one task waits for the disconnect. Where a
server gives its connection away, `DirectReader` sends the same body without ASGI.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.protocol import Cursor
from gateway.protocol.errors import HoldfastError, StoreUnavailable, TooManyReaders
from gateway.relay.follow import Relay
from gateway.relay.reader import Ending, Why
from gateway.store.record import Record
from gateway.web.direct_reader import DirectReader
from gateway.web.headers import SECURE
from gateway.web.stream_body import StreamBody, why_cancelled

HEADERS = {
    "cache-control": "no-cache, no-store, no-transform",
    "x-accel-buffering": "no",
    **SECURE,
}
# Our ASGI extension: a function that gives the connection to an asyncio.Protocol after the head was sent.
TAKE = "holdfast.take"


class EventStream(Response):
    """Sends the chunks as they come. `ending` says why they have ended; the rest is as in `StreamBody`."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        headers: Mapping[str, str] | None = None,
        ending: Ending | None = None,
        *,
        retry: bool = True,
        cut: bool = False,
    ) -> None:
        super().__init__(headers={**HEADERS, **(headers or {})}, media_type="text/event-stream")
        del self.headers["content-length"]
        # Without a charset: the format is UTF-8 by definition, and the contract says exactly this.
        self.headers["content-type"] = "text/event-stream"
        self._chunks = chunks
        self._ending = ending or Ending()
        self._body = StreamBody(retry=retry, cut=cut)
        # Called once, when the body has ended: why, and how many bytes of the body were sent.
        self.on_end: Callable[[str, int], None] = lambda why, sent: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run until the stream has ended, the client has gone, or the connection has reached its age."""
        task = asyncio.current_task()
        assert task is not None

        def cut(_: object) -> None:
            task.cancel(Why.GONE)

        gone = asyncio.create_task(disconnected(receive), name="reader-gone")
        gone.add_done_callback(cut)
        try:
            await self._send_all(send)
        except asyncio.CancelledError as error:
            why = why_cancelled(error)
            if why is None:
                raise
            self._body.end(why)
            task.uncancel()
        finally:
            self.on_end(self._body.why or Why.CUT, self._body.sent)
            gone.remove_done_callback(cut)
            gone.cancel()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    await send(_part(self._body.add(chunk)))
            # Without a reason the chunks go no further: only the sample's endpoint does this.
            self._body.end(self._ending.why or Why.RESET)
        except (StoreUnavailable, TooManyReaders) as error:
            if line := self._body.refuse(error):
                await send(_part(line))
        if self._in_order():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _in_order(self) -> bool:
        """Whether the body is ended in order."""
        return self._body.in_order


class LiveStream(EventStream):
    """A stream's own frames. Where the server gives its connection away, they are sent without ASGI."""

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
        self.headers["connection"] = "close"  # the connection is not given back
        self.headers["transfer-encoding"] = "chunked"  # `DirectReader` writes chunks
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        relay, record, after = self._of
        DirectReader(relay, record.id, after, self.on_end, record.owner).begin(take)


class CutStream(EventStream):
    """For clients that take an orderly end for the end of the stream: any other end cuts the connection.

    There is no `retry:` line. The server cuts a body that was begun and never ended (a chunked one, without
    its last chunk).
    """

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        headers: Mapping[str, str] | None = None,
        ending: Ending | None = None,
        *,
        ages: bool = True,
    ) -> None:
        """`ages`: at its age the connection is cut, too; else it is closed in good order there."""
        super().__init__(chunks, headers, ending, retry=False, cut=True)
        self._ages = ages

    def _in_order(self) -> bool:
        return super()._in_order() or (self._body.why is Why.AGE and not self._ages)


def _part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


def _no_mistake(record: logging.LogRecord) -> bool:
    """Drop uvicorn's log line for a body that was cut on purpose."""
    return record.msg != "ASGI callable returned without completing response."


logging.getLogger("uvicorn.error").addFilter(_no_mistake)


async def sent_away(error: HoldfastError) -> AsyncGenerator[bytes, None]:
    """The chunks of a reader that is to come back later: none. Raises the error instead of the first."""
    raise error
    yield b""


async def disconnected(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
