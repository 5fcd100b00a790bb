"""Properties that must hold for all input of a client: ids, headers and bodies."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request

from gateway import protocol
from gateway.protocol import Cursor, sse
from gateway.protocol.errors import HoldfastError, Invalid, Malformed, NotJson, TooLarge
from gateway.streams.start import DEFAULT, Start, parse_json, parse_sample, parse_start, read
from gateway.web import answers, request_head
from gateway.web.negotiate import negotiate
from tests.fuzz.source import Source, at_once, pieces, same

CHAINS: Mapping[str, Any] = {"chat": None, "haiku": None}
KINDS = ("text/event-stream", "application/json")
HEADERS = (
    b"last-event-id",
    b"accept",
    b"idempotency-key",
    b"traceparent",
    b"content-type",
    b"content-length",
)
URL_SAFE = set(string.ascii_letters + string.digits + "-_")
HEX = set("0123456789abcdef")
LONGEST_DETAIL = 400  # characters of an answer's explanation


def ids(data: bytes) -> None:
    """An id is 24 characters of the URL-safe alphabet, a cursor is a number and a tag; everything else is
    rejected."""
    for text in (data.decode("latin-1"), data.decode("utf-8", "surrogateescape")):
        shaped = len(text) == 24 and set(text) <= URL_SAFE and set(text[:2]) <= HEX
        assert protocol.is_stream_id(text) == shaped
        number, dash, tag = text.partition("-")
        digits = 1 <= len(number) <= 10 and set(number) <= set(string.digits)
        cursor = digits and dash == "-" and len(tag) == 4 and set(tag) <= HEX
        try:
            found = Cursor.parse(text)
        except ValueError:
            assert not cursor
        else:
            assert cursor
            assert (str(found), found.offset) == (text, int(number))
        trace = protocol.traceparent(text)
        assert trace in ("", text)
        if trace:
            version, trace_id, parent_id, flags = trace.split("-")
            assert [len(part) for part in (version, trace_id, parent_id, flags)] == [2, 32, 16, 2]
            assert set(trace) <= HEX | {"-"}
            assert int(trace_id, 16)
            assert int(parent_id, 16)
            assert version != "ff"


def headers(data: bytes) -> None:
    """Every header and query is parsed, or refused with the problem that the protocol names."""
    source = Source(data)
    query = source.field()
    given: list[tuple[bytes, bytes]] = []
    while not source.empty and len(given) < 8:
        given.append((HEADERS[source.byte() % len(HEADERS)], source.field()))
    request = _request(query, given)
    accept = [value.decode("latin-1") for name, value in given if name == b"accept"]
    chosen = negotiate(accept, KINDS, KINDS[0])
    assert chosen in (*KINDS, None)
    assert negotiate(accept, (KINDS[0],), KINDS[0]) in (KINDS[0], None)
    assert chosen is not None or negotiate(accept, (KINDS[0],), KINDS[0]) is None  # all kinds are refused
    cursors = [value for name, value in given if name == b"last-event-id"]
    try:
        cursor = request_head.cursor(request)
    except Malformed as error:
        _answerable(error)
    else:
        assert len(cursors) < 2
        if cursor and cursors:
            assert cursor.text.encode() == cursors[0]
        assert cursor is None or re.fullmatch(r"[0-9]{1,10}-[0-9a-f]{4}", cursor.text, re.ASCII)
    try:
        key = request_head.idempotency_key(request)
    except Invalid as error:
        _answerable(error)
    else:
        assert [key.encode()] == ([value for name, value in given if name == b"idempotency-key"] or [b""])
        assert not key or (key.isascii() and key.isprintable() and len(key) < 256)
    assert request_head.traceparent(request).encode() in (b"", *(v for n, v in given if n == b"traceparent"))


def body(data: bytes) -> None:
    """A body is refused with a problem of the protocol, or parsed to what was sent, for any JSON spelling."""
    try:
        value = parse_json(data)
    except (Malformed, Invalid) as error:
        _answerable(error)
        return
    assert _nested(value) <= DEFAULT.depth
    start = _start(value)
    if start is None:
        return
    assert start.chain in CHAINS
    assert start.input.keys() in ({"messages"}, {"input"})
    assert _start(_start_again(value)) == start
    for ascii_only in (True, False):
        spelled = json.dumps(value, ensure_ascii=ascii_only, indent=1)
        if spelled.isascii() or not _has_surrogates(spelled):
            again = _start(parse_json(spelled.encode()))
            assert again is not None
            assert again.digest == start.digest
    for kept in (start.input, start.params, start.metadata):  # in the form that the record stores
        assert same(json.loads(sse.dumps(kept)), kept)


def request(data: bytes) -> None:
    """A body in pieces is read up to its limit, or refused with one of three problems and read no further."""
    source = Source(data)
    bound, size = source.byte() + 1, source.byte() % 64 + 1
    given = [(b"content-type", source.field() or b"application/json"), (b"content-length", source.field())]
    sent = source.rest()
    left = pieces(sent, size)
    asked = _request(b"", given if given[1][1] else given[:1], left)
    try:
        value = parse_json(at_once(read(asked, replace(DEFAULT, bytes=bound))))
    except (NotJson, TooLarge, Malformed, Invalid) as error:
        _answerable(error)
        assert len(sent) - sum(map(len, left)) <= bound + size
        return
    assert len(sent) <= bound
    assert same(value, parse_json(sent))


def _start(value: Any) -> Start | None:
    for parse in (parse_sample, parse_start):
        try:
            start = parse(value, CHAINS)
        except Invalid as error:
            _answerable(error)
            start = None
    return start


def _start_again(value: Any) -> Any:
    """Return the same object with its members in the opposite order."""
    return dict(reversed(value.items()))


def _answerable(error: HoldfastError) -> None:
    """A problem's document is JSON in UTF-8 and contains little of the client's input."""
    answer = answers.problem(error)
    assert 400 <= answer.status_code < 500
    assert len(json.loads(bytes(answer.body))["detail"]) <= LONGEST_DETAIL
    assert all("\n" not in value and value.isascii() for value in answer.headers.values())


def _request(query: bytes, given: list[tuple[bytes, bytes]], sent: list[bytes] | None = None) -> Request:
    async def receive() -> dict[str, Any]:
        chunk = sent.pop(0) if sent else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(sent)}

    scope = {"type": "http", "method": "POST", "path": "/stream", "query_string": query, "headers": given}
    return Request(scope, receive)


def _nested(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_nested, inner), default=0)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)
