"""Requests on keep-alive sockets, in a given order: each whole answer without its date, and its time.

The sockets are plain, so that between writing a request and reading its answer the code only waits.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from urllib.parse import urlsplit

SOCKETS = 4
ANSWER_SECONDS = 60
_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)\r\n", re.IGNORECASE)
_DATE = re.compile(rb"\r\ndate: [^\r]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ask:
    """A caller's request to `/stream/{id}`."""

    method: str
    below: str
    headers: Mapping[str, str]

    def request(self, host: str, stream_id: str, query: str = "") -> bytes:
        """Return the bytes of the request."""
        named = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        where = f"/stream/{stream_id}{self.below}{query}"
        length = "content-length: 0\r\n" if self.method == "POST" else ""
        return f"{self.method} {where} HTTP/1.1\r\nhost: {host}\r\n{named}{length}\r\n".encode()


@dataclass(frozen=True, slots=True)
class Told:
    """An answer without its date, and its duration in nanoseconds."""

    answer: bytes
    took_ns: int

    @property
    def status(self) -> int:
        return int(self.answer[9:12])


def told(url: str, requests: Iterable[bytes], *, at_once: int = 1) -> Iterator[Told]:
    """Yield the answers, in the order of the requests. The sockets take turns; `at_once` of them are asked
    concurrently."""
    place = urlsplit(url)
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(
                socket.create_connection((place.hostname or "", place.port or 80), ANSWER_SECONDS)
            )
            for _ in range(max(SOCKETS, at_once))
        ]
        for one in sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        turns = cycle(sockets)
        for some in batched(requests, at_once):
            asked = [(_ask(one, request), one) for request, one in zip(some, turns, strict=False)]
            yield from (_answer(one, began) for began, one in asked)


def batched(requests: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Yield the requests in lists of this size."""
    left = iter(requests)
    while some := list(islice(left, size)):
        yield some


def _ask(connection: socket.socket, request: bytes) -> int:
    began = time.perf_counter_ns()
    connection.sendall(request)
    return began


def _answer(connection: socket.socket, began: int) -> Told:
    raw = connection.recv(65536)
    while raw and not _whole(raw):
        raw += connection.recv(65536)
    took = time.perf_counter_ns() - began
    assert _whole(raw), raw
    return Told(_DATE.sub(b"", raw), took)


def _whole(raw: bytes) -> bool:
    head, end, body = raw.partition(b"\r\n\r\n")
    found = _LENGTH.search(head + b"\r\n")
    return bool(end) and found is not None and len(body) == int(found[1])
