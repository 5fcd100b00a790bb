"""HTTP/1.1 for every process: uvicorn's parser, with limits that uvicorn does not have.

A client can use neither unlimited memory nor a place forever, whatever it sends or does not send:

- A head (request line and header fields) has at most 64 KiB and 200 fields. A larger head is answered 431
  (RFC 6585, 5). If it is not complete 15 s after its first byte, the connection is closed. The first byte of
  a connection must come within 15 s, too.
- A body must be complete 40 s after its head, with its trailers. The application has a shorter limit for the
  bodies that it reads, and answers when it has passed. The other bytes of a body (framing and extensions of
  chunks, trailers) are limited as a head is. Each chunk may add 16 bytes and twice its data (as in Go's
  net/http).
- A trailer is dropped. It is never used as a header field (RFC 9110, 6.5).
- The time between two requests is at most the keep-alive time, whatever else the client sends.
- Requests that are sent before earlier answers are complete (RFC 9112, 9.3.2) wait in their order, at most
  16. Nothing more is read in that time. One request more ends the connection, after the earlier requests are
  answered.
- A request that cannot be parsed is answered 400, after the answers to the earlier requests.
- If a client reads nothing of an answer for 60 s, the answer is dropped and the connection is closed. In this
  time, the connection loses its place to a new one if no place is free (`gateway.hosts.door`).
- HTTP/1.0 gets no chunked encoding (RFC 9112, 6.1): the end of the connection ends the body there.
- A target in absolute form names the host (RFC 9112, 3.2.2). `%2F` in a path is not a slash.
- There are at most as many connections as `Door` has places. The log reports ended connections, one line a
  minute at most.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.hosts.door import Door
from gateway.hosts.given import Given
from gateway.hosts.http10 import undelimited
from gateway.relay.hub import STALLED_SECONDS
from gateway.streams.start import BODY_SECONDS
from gateway.web.event_stream import TAKE

MOST_HEAD_BYTES = 64 * 1024
MOST_FIELDS = 200
MOST_AHEAD = 16
HEAD_SECONDS = 15.0
WHOLE_BODY_SECONDS = BODY_SECONDS + 10
CHUNK_BYTES = 16  # bytes that each chunk may add, plus twice its data
_SLASH = re.compile(b"%2f", re.IGNORECASE)


def _refusal(status: str, text: str = "") -> bytes:
    kind = "content-type: text/plain; charset=utf-8\r\n" if text else ""
    return (
        f"HTTP/1.1 {status}\r\n{kind}content-length: {len(text)}\r\nconnection: close\r\n\r\n{text}"
    ).encode()


_TOO_LARGE = _refusal("431 Request Header Fields Too Large")
_MALFORMED = _refusal("400 Bad Request", "Invalid HTTP request received.")


class _Refused(Exception):
    """Raised in a callback of the parser, so that the parser stops there."""

    def __init__(self, answer: bytes, why: str) -> None:
        self.answer = answer
        self.why = why


class _Due(Enum):
    """What the peer must send now. The value is the log line if it does not come in time."""

    NOTHING = ""
    HEAD = "a connection was closed: no request came in time"
    BODY = "a connection was closed: a request's body did not come in time"
    NEXT = "none: a connection was not used again"


class _Flow(FlowControl):
    """Stops all reading while a request waits for the answers to earlier requests."""

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline
        self.held = False  # True: nothing is read any more

    def resume_reading(self) -> None:
        """Read again, unless a request waits."""
        if not self._pipeline and not self.held:
            super().resume_reading()


class Bounded(HttpToolsProtocol):
    """One HTTP connection, which uses a place of a `Door`."""

    flow: _Flow

    def __init__(self, door: Door, **given: Any) -> None:
        super().__init__(**given)
        self._door = door
        self.inside = False
        self._answering: RequestResponseCycle | None = None  # the current request's cycle, or the last one
        self._refused: bytes | None = None  # the last answer; when set, nothing more is parsed
        self._number = 0  # number of the newest request on this connection
        self._headed = self._whole = False  # newest request: head complete, all complete
        self._marks = 0  # counts heads and requests that began or ended
        self._fields = self._field_bytes = 0  # in this head, or in these trailers
        self._beside = 0  # bytes of this head, or bytes of this body that are no data
        self._data = self._chunks = 0  # bytes and chunks of a body in the current read
        self._due = _Due.NOTHING, 0
        self._late: asyncio.TimerHandle | None = None
        self._behind: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request's head, if there is a place. Otherwise close the connection."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        if self._door.enter(self):
            self._expect()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place, cancel all timers, and tell the running request that its client is gone."""
        self._door.leave(self)
        self._forget()
        self._in_step()
        super().connection_lost(exc)

    def give_way(self) -> None:
        """Close the connection, because another connection gets its place."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse the received bytes, within the limits."""
        if self._refused is not None or self.transport.is_closing():
            return
        marks, self._data, self._chunks = self._marks, 0, 0
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, _Refused):
                self._refuse(cause.answer, cause.why)
            else:
                self._refuse(_MALFORMED, "a connection was closed: what it sent is not HTTP")
            return
        if marks != self._marks:
            self._beside = 0  # a new part began in this read; one read has a limited size
        else:
            allowed = self._data * 3 + self._chunks * CHUNK_BYTES
            self._beside = max(0, self._beside + len(data) - allowed)
            if self._beside > MOST_HEAD_BYTES:
                self._refuse(*self._too_large())
                return
        self._expect()

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:  # the upgrade is ignored (RFC 9110, 7.8)
                data = data[upgrade.args[0] :]

    def on_message_begin(self) -> None:
        """Begin a request. Raises _Refused when too many requests wait."""
        if len(self.pipeline) >= MOST_AHEAD:
            raise _Refused(b"", "a connection was closed: too many requests were sent ahead of their answers")
        super().on_message_begin()
        extensions: dict[str, Any] = {TAKE: self._give}
        self.scope["extensions"] = extensions
        self._number += 1
        self._marks += 1
        self._headed = self._whole = False
        self._fields = self._field_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Add more bytes to the request's target. Raises _Refused when it is too long."""
        super().on_url(url)
        if len(self.url) > MOST_HEAD_BYTES:
            raise _Refused(*self._too_large())

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a field of the head, but drop one of the trailers. Raises _Refused when there are too many."""
        self._fields += 1
        self._field_bytes += len(name) + len(value)
        if self._fields > MOST_FIELDS or self._field_bytes > MOST_HEAD_BYTES:
            raise _Refused(*self._too_large())
        if not self._headed:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the request's cycle, because its head is complete."""
        self._marks += 1
        self._fields = self._field_bytes = 0
        if not self.url.startswith(b"/"):
            self._take_host_of_target()
        super().on_headers_complete()
        if _SLASH.search(self.scope["raw_path"]):
            self.scope["path"] = unquote(_SLASH.sub(b"%252F", self.scope["raw_path"]).decode("ascii"))
        if self.scope["http_version"] != "1.1":
            self.cycle.keep_alive = False
        self._headed = True  # set last: there is no cycle if the target cannot be parsed

    def on_chunk_header(self) -> None:
        """Count a chunk of the body."""
        self._chunks += 1

    def on_body(self, body: bytes) -> None:
        """Count the bytes of the body and pass them on."""
        self._data += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        self._whole = True
        self._marks += 1
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """After an answer: start the next request, or send the refusal, or wait for a request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._see_off()
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refused is not None:
            self._end(self._refused)
            return
        self.flow.resume_reading()
        self._expect()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        if cycle.scope["http_version"] != "1.1":
            app = functools.partial(undelimited, cycle, app)
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        """Watch the socket, because the peer reads too slowly. Cut it if the peer reads nothing more."""
        super().pause_writing()
        self._in_step()
        self._watch(self.transport.get_write_buffer_size())
        self._door.owes(self)

    def resume_writing(self) -> None:
        """Stop watching the socket, because the peer has read enough."""
        super().resume_writing()
        self._in_step()
        if self.transport.is_closing():
            self._see_off()  # the peer must still read the rest
        elif self._due[0] is _Due.NOTHING:
            self._door.owed(self)

    def _take_host_of_target(self) -> None:
        """Use the host of `http://host/path` instead of the Host field. Raises httptools' error."""
        target = httptools.parse_url(self.url)
        if target.host is None:
            return  # the target is `*`
        host = b"[%b]" % target.host if b":" in target.host else target.host
        host += b":%d" % target.port if target.port else b""
        self.headers[:] = [field for field in self.headers if field[0] != b"host"] + [(b"host", host)]
        if target.path is None:
            self.url = b"/" + (b"?%b" % target.query if target.query else b"")

    def _too_large(self) -> tuple[bytes, str]:
        what = "body's framing or trailers" if self._headed and not self._whole else "head"
        return _TOO_LARGE, f"a connection was closed: a request's {what} passed the bound"

    def _refuse(self, answer: bytes, why: str) -> None:
        """Parse nothing more. Answer the earlier requests, then send this answer, then close."""
        self._door.tally.count(why)
        self._refused = answer
        self.flow.held = True
        self.flow.pause_reading()
        if self._headed and not self._whole:  # the refused bytes belong to the newest request's own body
            if self.pipeline:
                self.pipeline.popleft()  # drop the newest request
            elif self.cycle.response_started:
                self._end(b"")
                return
            else:
                self._end(answer)
                return
        if self._is_answering():
            self._expect()
        else:
            self._end(answer)

    def _see_off(self) -> None:
        """Wait until the peer has read the rest of a closed connection, but not forever."""
        self._door.owes(self)
        if self._behind is None and self.transport.get_write_buffer_size():
            self._watch(self.transport.get_write_buffer_size())

    def _is_answering(self) -> bool:
        return self._answering is not None and not self._answering.response_complete

    def _end(self, last: bytes) -> None:
        if not self.transport.is_closing():
            if last:
                self.transport.write(last)
            self.transport.close()
        self._forget()
        self._see_off()

    def _forget(self) -> None:
        """Tell the running request that its client is gone, and drop the waiting requests."""
        if self._late is not None:
            self._late.cancel()
        self.pipeline.clear()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def _expect(self) -> None:
        """Start the timer for what the peer must send now, if this has changed."""
        if self._refused is not None:
            due = _Due.NOTHING
        elif not self._whole:
            due = _Due.BODY if self._headed else _Due.HEAD
        else:
            due = _Due.NOTHING if self._is_answering() else _Due.NEXT
        if self._due == (due, self._number):
            return
        self._due = due, self._number
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if due is not _Due.NOTHING or self.flow.write_paused:
            self._door.owes(self)
        else:
            self._door.owed(self)
        if due is not _Due.NOTHING:
            self._late = self.loop.call_later(self._seconds(due), self._overdue, due)

    def _seconds(self, due: _Due) -> float:
        if due is _Due.NEXT:
            return self.timeout_keep_alive
        return WHOLE_BODY_SECONDS if due is _Due.BODY else HEAD_SECONDS

    def _overdue(self, due: _Due) -> None:
        if self.flow.read_paused:  # this process has paused reading, so the peer is not late
            self._late = self.loop.call_later(self._seconds(due), self._overdue, due)
            return
        if due is not _Due.NEXT:
            self._door.tally.count(due.value)
        self._end(b"")

    def _watch(self, waiting: int) -> None:
        self._behind = self.loop.call_later(STALLED_SECONDS, self._look, waiting)

    def _look(self, waited: int) -> None:
        waiting = self.transport.get_write_buffer_size()
        if waiting < waited:
            self._watch(waiting)
        else:
            self._door.tally.count("a connection was cut: nothing of its answer was taken")
            self.transport.abort()

    def _in_step(self) -> None:
        if self._behind is not None:
            self._behind.cancel()
            self._behind = None

    def _give(self, protocol: asyncio.Protocol) -> asyncio.Transport | None:
        """Give the connection to another protocol. Return None when it is closing."""
        transport = self.transport
        if transport.is_closing():
            return None
        given = Given(protocol, transport, self._door)
        self._door.hand_over(self, given)
        self._forget()
        self._in_step()
        self.flow.held = False
        self.flow.resume_reading()
        super().connection_lost(ConnectionResetError("given away"))
        transport.set_protocol(given)
        return transport


def bounded(most: int = 0) -> Callable[..., Bounded]:
    """Return uvicorn's factory of connections (`http` of its Config). They share one door."""
    return functools.partial(Bounded, Door(most))
