"""An HTTP answer that is an event stream, sent by ASGI, for every host.

One task waits for the disconnect, so a client that has gone is noticed even while nothing is sent. If a
server hands its connection over, `DirectReader` sends the same body without ASGI.
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
# Our ASGI extension: a function that hands the connection to an asyncio.Protocol after the head was sent.
TAKE = "holdfast.take"


class EventStream(Response):
    """An answer that sends the chunks as they come.

    `ending` contains the reason why the chunks have ended. For the other parameters see `StreamBody`.
    """

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
        # Without a charset: the format is always UTF-8, and the contract promises exactly this value.
        self.headers["content-type"] = "text/event-stream"
        self._chunks = chunks
        self._ending = ending or Ending()
        self._body = StreamBody(retry=retry, cut=cut)
        # Called once, when the body has ended, with the reason and the number of body bytes that were sent.
        self.on_end: Callable[[str, int], None] = lambda why, sent: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the stream has ended, the client has gone, or the connection reaches its maximum age."""
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
            # If no reason is set, the chunks were stopped early. Only the sample's endpoint stops its chunks
            # early.
            self._body.end(self._ending.why or Why.RESET)
        except (StoreUnavailable, TooManyReaders) as error:
            if line := self._body.refuse(error):
                await send(_part(line))
        if self._in_order():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _in_order(self) -> bool:
        """Whether the body gets an orderly end."""
        return self._body.in_order


class LiveStream(EventStream):
    """A stream's own frames.

    If the server hands its connection over, the frames are sent without ASGI.
    """

    def __init__(
        self, relay: Relay, record: Record, after: Cursor | None, headers: Mapping[str, str]
    ) -> None:
        ending = Ending()
        super().__init__(relay.follow(record.id, after, ending, record.owner), headers, ending)
        self._of = relay, record, after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, or hand over the connection."""
        take = scope.get("extensions", {}).get(TAKE)
        if take is None or scope["http_version"] != "1.1":
            await super().__call__(scope, receive, send)
            return
        self.headers["connection"] = "close"  # the server does not get the connection back
        self.headers["transfer-encoding"] = "chunked"  # `DirectReader` writes chunks
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        relay, record, after = self._of
        DirectReader(relay, record.id, after, self.on_end, record.owner).begin(take)


class CutStream(EventStream):
    """An event stream for clients that treat an orderly end of the body as the end of the stream.

    Any other end cuts the connection. There is no `retry:` line. When a body was begun and not ended, the
    server cuts the connection (a chunked body then lacks its last chunk).
    """

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        headers: Mapping[str, str] | None = None,
        ending: Ending | None = None,
        *,
        ages: bool = True,
    ) -> None:
        """Prepare the answer.

        `ages`: cut the connection also when it reaches its maximum age. If false, it is closed in order at
        that age.
        """
        super().__init__(chunks, headers, ending, retry=False, cut=True)
        self._ages = ages

    def _in_order(self) -> bool:
        return super()._in_order() or (self._body.why is Why.AGE and not self._ages)


def _part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


def _no_mistake(record: logging.LogRecord) -> bool:
    """Drop uvicorn's log line about a body that was cut on purpose."""
    return record.msg != "ASGI callable returned without completing response."


logging.getLogger("uvicorn.error").addFilter(_no_mistake)


async def sent_away(error: HoldfastError) -> AsyncGenerator[bytes, None]:
    """Raise the error instead of yielding a first chunk. The reader should connect again later."""
    raise error
    yield b""


async def disconnected(receive: Receive) -> None:
    """Wait until the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
