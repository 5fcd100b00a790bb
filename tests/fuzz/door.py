"""Properties that must hold for all data on a connection, in any pieces, before and after answers are
complete."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from gateway.hosts.door import Door
from gateway.hosts.uvicorn_protocol import MOST_AHEAD, MOST_FIELDS, Bounded
from tests.fuzz.source import Source, pieces


class Wire:
    """A transport that records the written bytes."""

    def __init__(self) -> None:
        self.closed = self.paused = False
        self.written: list[bytes] = []

    def get_extra_info(self, name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Task:
    """A stand-in for a task that is never awaited, and for a timer that never fires."""

    def add_done_callback(self, _: object) -> None:
        pass

    def cancel(self) -> None:
        pass


class Loop:
    """An event loop that runs nothing by itself."""

    def call_later(self, *_: object) -> Task:
        return Task()

    def create_task(self, made: Coroutine[Any, Any, None]) -> Task:
        made.close()
        return Task()


async def nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Do nothing, as the application: the target itself decides when an answer is complete."""


CONFIG = uvicorn.Config(nothing, log_config=None, lifespan="off")
CONFIG.load()


def door(data: bytes) -> None:
    """No input raises. The waiting data is limited. A refusal is written alone, and nothing is read after
    it."""
    source = Source(data)
    size, answers = source.byte() + 1, source.byte()
    loop: Any = Loop()
    wire: Any = Wire()
    one = Bounded(Door(9), config=CONFIG, server_state=ServerState(), app_state={}, _loop=loop)
    one.connection_made(wire)
    for number, piece in enumerate(pieces(source.rest(), size)):
        answering = one._is_answering()
        one.data_received(piece)
        assert len(one.pipeline) <= MOST_AHEAD
        assert one.headers is None or len(one.headers) <= MOST_FIELDS + 1
        own_body = one._headed and not one._whole  # its body is broken: the refusal answers this same request
        assert not (answering and wire.written) or own_body
        if one._is_answering() and not wire.closed and answers >> (number % 8) & 1:
            assert one._answering is not None
            one._answering.response_started = one._answering.response_complete = True
            one.on_response_complete()
        assert wire.closed or wire.paused or not one.pipeline  # no request is added to those that wait
        if wire.closed:
            break
    assert len(wire.written) <= 1
    assert all(said.startswith(b"HTTP/1.1 4") for said in wire.written)
    one.connection_lost(None)
