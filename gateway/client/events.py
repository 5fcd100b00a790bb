"""The values that the Python client returns, and the exceptions that it raises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.protocol import TERMINAL_EVENTS

WAITING = "waiting"  # the status of a stream that has open questions


class GatewayError(Exception):
    """The base class of the client's errors."""


class Refused(GatewayError):
    """The gateway refused a request.

    `status` is the HTTP status. `code` is the stable code of the problem document. `retry_after` is the
    seconds to wait, if the gateway gave them.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None) -> None:
        self.status = status
        self.code = str(problem.get("code", ""))
        self.problem = problem
        self.retry_after = retry_after
        super().__init__(str(problem.get("detail") or f"HTTP {status}"))


class Unreachable(GatewayError):
    """The client received nothing from the gateway for `patience` seconds.

    The cause is the error of the last try.
    """

    def __init__(self, cause: Exception) -> None:
        why = str(cause) or type(cause).__name__
        super().__init__(f"nothing was heard of the gateway ({why})")


class StreamFailed(GatewayError):
    """The stream ended without a result.

    `code` and `retryable` are those of the `failed` event. `text` is the text that was received before.
    `detail` is a message for the author of the chain, only from a gateway in development; otherwise it is
    empty.
    """

    def __init__(self, error: Mapping[str, Any], text: str) -> None:
        self.code = str(error.get("code", ""))
        self.retryable = bool(error.get("retryable"))
        self.text = text
        self.detail = str(error.get("detail", ""))
        super().__init__(str(error.get("message", self.code)))


class StreamCancelled(GatewayError):
    """The stream was cancelled."""

    def __init__(self) -> None:
        super().__init__("the stream was cancelled")


class StreamTaken(GatewayError):
    """Another producer has taken the stream over."""

    def __init__(self) -> None:
        super().__init__("another producer has taken the stream over")


class StreamEnded(GatewayError):
    """The stream of a producer has ended.

    `status` is `done` or `failed`. It is empty if the record no longer exists.
    """

    def __init__(self, status: str) -> None:
        self.status = status
        super().__init__(f"the stream has ended ({status or 'it is not kept any more'})")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its id, its type (`message` for text), and its data.

    Later versions of the protocol may add types.
    """

    id: str
    type: str
    data: Any

    @property
    def text(self) -> str:
        """The piece of text in this event; empty if the event has no text."""
        return str(self.data["delta_content"]) if self.type == "message" else ""

    @property
    def final(self) -> bool:
        """Return whether this event ends its stream."""
        return self.type in TERMINAL_EVENTS


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of one stage, as received so far. `state` is `started` or `finished`."""

    name: str
    run: int
    state: str
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a stream: its text, the runs of its stages in order, its usage, and why it ended.

    `interrupts` are the questions of a graph, each `{"id", "value"}`, some also with `response_schema`.
    Answer them with `Gateway.resume`.
    """

    text: str
    stages: Sequence[Stage]
    usage: Mapping[str, int]
    finish_reason: str
    interrupts: Sequence[Mapping[str, Any]] = ()

    @property
    def interrupted(self) -> bool:
        """Return whether a graph stopped with a question, or at a breakpoint."""
        return self.finish_reason == "interrupted"
