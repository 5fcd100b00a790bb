"""The error tree. Each error class has an HTTP status and a stable code; its docstring is its message.

An answer is made from the class (status, code, title) and from `detail`, which the product wrote itself. The
text of a foreign exception never reaches a client (RFC 9457 problem details, `protocol.md`, Errors).
"""

from __future__ import annotations

import traceback
from typing import ClassVar


class HoldfastError(Exception):
    """The gateway failed; the operator finds the reason in its log."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    retry_after_seconds: int | None = None
    # Names of the extension members that the problem document of this error always has.
    members: ClassVar[tuple[str, ...]] = ()

    def __init__(self, detail: str = "", **extensions: str) -> None:
        super().__init__(detail or self.title())
        self.detail = detail or self.title()
        self.extensions = extensions

    @classmethod
    def title(cls) -> str:
        """Return the first line of the docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    def problem(self) -> dict[str, object]:
        """Return the RFC 9457 object: type, title, status, detail, code, and the error's own extensions."""
        return {
            "type": f"urn:holdfast:problem:{self.code}",
            "title": self.title(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.extensions,
        }


class Malformed(HoldfastError):
    """The request cannot be read."""

    status = 400
    code = "malformed"


class Unauthorized(HoldfastError):
    """Who asks is not known here."""

    status = 401
    code = "unauthorized"


class Forbidden(HoldfastError):
    """Who asks is known, and may not use this gateway."""

    status = 403
    code = "forbidden"


class StreamNotFound(HoldfastError):
    """There is no such stream."""

    status = 404
    code = "not_found"


class NoWebhooks(HoldfastError):
    """This gateway sends no webhooks: it has no GATEWAY_WEBHOOK_KEYS."""

    status = 404
    code = "no_webhooks"


class RouteNotFound(HoldfastError):
    """There is nothing at this path."""

    status = 404
    code = "no_route"


class MethodNotAllowed(HoldfastError):
    """This path does not take this method."""

    status = 405
    code = "method_not_allowed"


class NotAcceptable(HoldfastError):
    """This resource is served as text/event-stream or application/json."""

    status = 406
    code = "not_acceptable"


class WrongPosition(HoldfastError):
    """Lines are missing before this position."""

    status = 409
    code = "wrong_position"
    members = ("position",)

    def __init__(self, position: int) -> None:
        super().__init__(f"lines are missing: {position} are counted")
        self.position = position

    def problem(self) -> dict[str, object]:
        """Return the problem document of any error, with the position from which on lines are missing."""
        return {**super().problem(), "position": self.position}


class WriterReplaced(HoldfastError):
    """Another producer has taken the stream over."""

    status = 409
    code = "stream_taken"


class WriterEnded(HoldfastError):
    """The stream has ended: nothing can be written any more."""

    status = 409
    code = "stream_ended"
    # Not `status`: the problem document uses that name for the HTTP status.
    members = ("stream_status",)

    def __init__(self, stream_status: str) -> None:
        super().__init__(f"the stream has ended: {stream_status}", stream_status=stream_status)


class StreamRunning(HoldfastError):
    """The stream has not ended."""

    status = 409
    code = "running"


class NotFailed(HoldfastError):
    """The stream has not failed: only a failed one is tried again."""

    status = 409
    code = "not_failed"


class ChainChanged(HoldfastError):
    """The chain has other stages now, or is gone: start a new stream."""

    status = 409
    code = "chain_changed"


class NotWaiting(HoldfastError):
    """The stream waits for no answer."""

    status = 409
    code = "not_waiting"


class AlreadyAnswered(HoldfastError):
    """Another answer was first: `resumed_by` is the stream that goes on with it."""

    status = 409
    code = "already_answered"
    members = ("resumed_by",)

    def __init__(self, resumed_by: str) -> None:
        super().__init__(resumed_by=resumed_by)


class ThreadRefused(HoldfastError):
    """The thread does not take this stream now."""

    status = 409
    code = "thread_refused"


class ThreadBusy(ThreadRefused):
    """Another stream of the thread runs."""

    code = "thread_busy"
    members = ("stream",)

    def __init__(self, stream: str, detail: str = "") -> None:
        super().__init__(detail, stream=stream)


class ThreadWaiting(ThreadRefused):
    """The thread's newest stream waits for an answer to its question."""

    code = "thread_waiting"
    members = ("stream",)

    def __init__(self, stream: str) -> None:
        super().__init__(stream=stream)


class ThreadMoved(ThreadRefused):
    """Another stream of the thread has begun meanwhile."""

    code = "thread_moved"


class NoOwner(HoldfastError):
    """Here nobody is asked who he is, so nothing can be kept for one caller alone."""

    status = 403
    code = "no_owner"


class StreamGone(HoldfastError):
    """The stream is past its retention."""

    status = 410
    code = "gone"


class TooLarge(HoldfastError):
    """The request body is too large."""

    status = 413
    code = "too_large"


class NotJson(HoldfastError):
    """The request body must be application/json."""

    status = 415
    code = "not_json"


class NotLines(HoldfastError):
    """The request body must be application/x-ndjson."""

    status = 415
    code = "not_ndjson"


class Encoded(HoldfastError):
    """The request body must not be encoded: send it without Content-Encoding."""

    status = 415
    code = "encoded"


class Misdirected(HoldfastError):
    """The name in Host is not one of this gateway's: GATEWAY_HOSTS names them."""

    status = 421
    code = "misdirected"


class Invalid(HoldfastError):
    """The request breaks a rule."""

    status = 422
    code = "invalid"
    members = ("field", "rule")

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}", field=field, rule=rule)


class UnknownInterrupt(HoldfastError):
    """This is no open question of the stream."""

    status = 422
    code = "unknown_interrupt"


class UnansweredInterrupts(HoldfastError):
    """All open questions are answered in one request."""

    status = 422
    code = "unanswered_interrupts"


class KeyReused(HoldfastError):
    """This Idempotency-Key was used with another body."""

    status = 422
    code = "idempotency_key_reused"


class OverQuota(HoldfastError):
    """The caller's quota is used up."""

    status = 429
    code = "over_quota"
    retry_after_seconds = 2

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class QueueFull(HoldfastError):
    """Too many jobs are waiting."""

    status = 429
    code = "queue_full"
    retry_after_seconds = 5


class TooManyReaders(HoldfastError):
    """Too many readers are connected."""

    status = 429
    code = "too_many_readers"
    retry_after_seconds = 10


class AuthUnavailable(HoldfastError):
    """Who asks cannot be found out now."""

    status = 503
    code = "auth_unavailable"
    retry_after_seconds = 5


class StoreUnavailable(HoldfastError):
    """The store is out of reach."""

    status = 503
    code = "store_unavailable"
    retry_after_seconds = 2


class QueueUnavailable(HoldfastError):
    """The queue is out of reach."""

    status = 503
    code = "queue_unavailable"
    retry_after_seconds = 2


class CursorLost(HoldfastError):
    """The log does not hold the event that the cursor names."""

    status = 409
    code = "log_lost"


class WrongChain(ValueError):
    """A chain's factory returns something that is not a chain.

    The text names chains, stages and places in them. It contains no values.
    """


def stack_of(error: BaseException) -> str:
    """Return where an exception came from, with its type and without its text.

    The text may quote a prompt or a key.
    """
    return "".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__
