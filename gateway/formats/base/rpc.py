"""JSON-RPC 2.0 for formats that are spoken by it: a call, its answer, its refusal, an answer that streams.

A refusal that is the protocol's own (what was asked is wrong) is answered with status 200: clients that look
at the status first would never read the code. What a proxy or a client's own repetition looks at (who may
ask, how much, whether the gateway is there) keeps its status, with the same body.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.responses import Response

from gateway.protocol import sse
from gateway.protocol.errors import HoldfastError, Invalid
from gateway.streams.strict_json import check_text
from gateway.web.answers import json_answer, problem

PARSE, REQUEST, METHOD, PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
MOST_ID = 256  # characters
_OWN = (400, 404, 409, 410, 422)  # statuses of refusals that are told by status 200
_LARGEST = 2**53
_DATA = b"\ndata: "
T = TypeVar("T")

_asked: ContextVar[Any] = ContextVar("asked", default=None)  # the id of the call that is being answered


class NotCall(Invalid):
    """The body is no call of JSON-RPC."""

    code = "not_a_call"


class NoMethod(HoldfastError):
    """There is no such method."""

    status = 404
    code = "no_method"


@dataclass(frozen=True, slots=True)
class Call:
    """One message. `id` is None for a notification, which gets no answer."""

    id: str | int | None
    method: str
    params: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Read:
    """A call and what its params say, or why they say nothing."""

    call: Call
    params: Any = field(default=None, repr=False)
    error: HoldfastError | None = None


def parse_call(value: Any) -> Call:
    """One JSON-RPC message of a client's. Raises NotCall, which names the field."""
    if not isinstance(value, dict):
        raise NotCall("body", "must be one JSON-RPC message: an object")
    if value.get("jsonrpc") != "2.0":
        raise NotCall("jsonrpc", "must be 2.0")
    method, params, name = value.get("method"), value.get("params", {}), value.get("id")
    if not isinstance(method, str) or not 0 < len(method) <= MOST_ID:
        raise NotCall("method", "must be the name of a method")
    if not isinstance(params, dict):
        raise NotCall("params", "must be an object")
    if not is_id(name) and name is not None:
        raise NotCall("id", f"must be a string of at most {MOST_ID} characters, or a whole number")
    if isinstance(name, str):
        check_text("id", name)
    return Call(name, method, params)


def is_id(name: Any) -> bool:
    """Whether this may be a call's id."""
    if isinstance(name, str):
        return len(name) <= MOST_ID
    return isinstance(name, int) and not isinstance(name, bool) and abs(name) < _LARGEST


def read_call(value: Any, then: Callable[[Call], T]) -> Read:
    """The call of a body, and what `then` makes of its params; a refusal of these is kept, with the id."""
    call = parse_call(value)
    try:
        return Read(call, then(call))
    except HoldfastError as error:
        return Read(call, error=error)


def begin_call(call: Call | None) -> None:
    """Refusals of this request are of this call from now on."""
    _asked.set(None if call is None else call.id)


def result(call: Call, value: Any) -> dict[str, Any]:
    """A call's answer."""
    return {"jsonrpc": "2.0", "id": call.id, "result": value}


def refused(error: HoldfastError, code: int, data: Any, *, status: int = 0) -> Response:
    """The refusal of the call that is being answered. `status`: HTTP's, where it is another one."""
    kept = {
        name: value
        for name, value in problem(error).headers.items()
        if name not in ("content-type", "content-length")
    }
    told = {"code": code, "message": error.detail, "data": data}
    status = status or (200 if error.status in _OWN else error.status)
    return json_answer({"jsonrpc": "2.0", "id": _asked.get(), "error": told}, status, kept)


def enveloped(call: Call, first: bytes = b"") -> Callable[[AsyncGenerator[bytes, None]], Any]:
    """Makes each frame's data the result of this call. `first`: a frame that comes before all others.

    The frames have an id, and data of one line; they come in pieces that may end within a frame.
    """
    before = b'%b{"jsonrpc":"2.0","id":%b,"result":' % (_DATA, sse.dumps(call.id))

    def wrapped(frames: bytes) -> bytes:
        return frames.replace(_DATA, before).replace(sse.FRAME_END, b"}" + sse.FRAME_END)

    async def wrap(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        kept = b""
        async with aclosing(chunks) as source:
            if first:
                yield wrapped(first)
            async for chunk in source:
                if chunk in (b"", sse.HEARTBEAT):
                    yield chunk
                    continue
                whole = kept + chunk
                end = _end(whole)
                kept = whole[end:]
                yield wrapped(whole[:end])

    return wrap


def _end(whole: bytes) -> int:
    """How much of a piece may be looked at; what is behind it may be the beginning of what is looked for."""
    if whole.endswith(sse.FRAME_END):
        return len(whole)
    last = whole.rfind(b"\n")
    if last < 0 or len(whole) - last >= len(_DATA):
        return len(whole)
    return last - 1 if last and whole[last - 1 : last] == b"\n" else last
