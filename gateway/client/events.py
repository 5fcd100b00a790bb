"""What the Python client gives and raises: values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.protocol import TERMINAL_EVENTS

WAITING = "waiting"  # the state of a stream whose questions are open


class GatewayError(Exception):
    """The gateway's client failed."""


class Refused(GatewayError):
    """The gateway has refused a request.

    `status` is HTTP's, `code` the problem's stable one, `retry_after` seconds where it names any.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None) -> None:
        self.status = status
        self.code = str(problem.get("code", ""))
        self.problem = problem
        self.retry_after = retry_after
        super().__init__(str(problem.get("detail") or f"HTTP {status}"))


class Unreachable(GatewayError):
    """Nothing was heard of the gateway for as long as the patience lasts; the cause is the last try's."""

    def __init__(self, cause: Exception) -> None:
        why = str(cause) or type(cause).__name__
        super().__init__(f"nothing was heard of the gateway ({why})")


class StreamFailed(GatewayError):
    """The stream ended without a result; `code`, `retryable`, and the text that it had said.

    `detail`: of a gateway in development, what the chain's author is told; else empty.
    """

    def __init__(self, error: Mapping[str, Any], text: str) -> None:
        self.code = str(error.get("code", ""))
        self.retryable = bool(error.get("retryable"))
        self.text = text
        self.detail = str(error.get("detail", ""))
        super().__init__(str(error.get("message", self.code)))


class StreamCancelled(GatewayError):
    """Somebody has cancelled the stream."""

    def __init__(self) -> None:
        super().__init__("the stream was cancelled")


class StreamTaken(GatewayError):
    """Another producer has taken the stream over."""

    def __init__(self) -> None:
        super().__init__("another producer has taken the stream over")


class StreamEnded(GatewayError):
    """A producer's stream has ended; `status` is `done` or `failed`, or empty where nothing is kept of it."""

    def __init__(self, status: str) -> None:
        self.status = status
        super().__init__(f"the stream has ended ({status or 'it is not kept any more'})")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its id, its type (`message` for text), and its data. Types may be added to the protocol."""

    id: str
    type: str
    data: Any

    @property
    def text(self) -> str:
        """The piece of text that it is, or nothing."""
        return str(self.data["delta_content"]) if self.type == "message" else ""

    @property
    def final(self) -> bool:
        """Whether it ends its stream."""
        return self.type in TERMINAL_EVENTS


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of one stage as far as it has come; `state` is `started` or `finished`."""

    name: str
    run: int
    state: str
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a stream came to: its text, its stages' runs in order, usage, why it ended.

    `interrupts` are what a graph has stopped to ask, each `{"id", "value"}`, perhaps with `response_schema`:
    `Gateway.resume` answers them.
    """

    text: str
    stages: Sequence[Stage]
    usage: Mapping[str, int]
    finish_reason: str
    interrupts: Sequence[Mapping[str, Any]] = ()

    @property
    def interrupted(self) -> bool:
        """Whether a graph has stopped to ask, or at a breakpoint."""
        return self.finish_reason == "interrupted"
