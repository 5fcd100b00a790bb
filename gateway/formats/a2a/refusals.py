"""A2A's words for why something is refused: a code of JSON-RPC, and a reason of `google.rpc.ErrorInfo`."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from gateway.formats.a2a.request import NoPush, WrongContent
from gateway.formats.a2a.tasks import NotCancelable, TaskOver
from gateway.formats.base import rpc
from gateway.protocol.errors import (
    AlreadyAnswered,
    HoldfastError,
    Invalid,
    KeyReused,
    Malformed,
    NotWaiting,
    RouteNotFound,
    StreamGone,
    StreamNotFound,
    ThreadRefused,
    UnansweredInterrupts,
    UnknownInterrupt,
)


class NoVersion(HoldfastError):
    """Only version 1.0 of A2A is served."""

    status = 422
    code = "no_version"


INTERNAL = rpc.INTERNAL, "INTERNAL_ERROR"
# The first that fits, so a subclass stands before its base.
_WORDS: tuple[tuple[type[HoldfastError], int, str], ...] = (
    (StreamNotFound, -32001, "TASK_NOT_FOUND"),
    (StreamGone, -32001, "TASK_NOT_FOUND"),
    (NotCancelable, -32002, "TASK_NOT_CANCELABLE"),
    (NoPush, -32003, "PUSH_NOTIFICATION_NOT_SUPPORTED"),
    (TaskOver, -32004, "UNSUPPORTED_OPERATION"),
    (ThreadRefused, -32004, "UNSUPPORTED_OPERATION"),
    (AlreadyAnswered, -32004, "UNSUPPORTED_OPERATION"),
    (NotWaiting, -32004, "UNSUPPORTED_OPERATION"),
    (WrongContent, -32005, "CONTENT_TYPE_NOT_SUPPORTED"),
    (NoVersion, -32009, "VERSION_NOT_SUPPORTED"),
    (rpc.NotCall, rpc.REQUEST, "INVALID_REQUEST"),
    (Invalid, rpc.PARAMS, "INVALID_PARAMS"),
    (UnknownInterrupt, rpc.PARAMS, "INVALID_PARAMS"),
    (UnansweredInterrupts, rpc.PARAMS, "INVALID_PARAMS"),
    (KeyReused, rpc.PARAMS, "INVALID_PARAMS"),
    (Malformed, rpc.PARSE, "JSON_PARSE_ERROR"),
    (rpc.NoMethod, rpc.METHOD, "METHOD_NOT_FOUND"),
)


def words_of(error: HoldfastError) -> tuple[int, str]:
    """The code and the reason."""
    found = ((code, reason) for kind, code, reason in _WORDS if isinstance(error, kind))
    return next(found, INTERNAL)


def details_of(error: HoldfastError) -> list[dict[str, Any]]:
    """What a client reads beside the message: the reason, and our own code and members."""
    told = {name: str(value) for name, value in error.extensions.items()}
    return [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": words_of(error)[1],
            "domain": "a2a-protocol.org",
            "metadata": {"code": error.code, **told},
        }
    ]


def told(error: HoldfastError) -> Response:
    """As JSON-RPC has it; no such agent, as HTTP has it."""
    status = error.status if isinstance(error, RouteNotFound) else 0
    return rpc.refused(error, words_of(error)[0], details_of(error), status=status)
