"""Traces and metrics by OpenTelemetry's API. They are exported only if the settings name an exporter.

One trace covers the POST, the queue, every attempt and the calls of the model. The job carries its context,
and an attempt has a link to the attempt before. Names follow the semantic conventions for messaging and
generative AI where these define them. Only ids, names, numbers and states are recorded, never content of
users or models.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Histogram, Observation
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.settings import Settings

NAME = "holdfast"
tracer = trace.get_tracer(NAME)
_meter = metrics.get_meter(NAME)
_log = logging.getLogger("holdfast.telemetry")
_propagator = TraceContextTextMapPropagator()

# Bucket bounds in seconds, from an append to a run of minutes. OpenTelemetry's default bounds are for
# milliseconds.
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


def _seconds(name: str, meaning: str, bounds: Sequence[float]) -> Histogram:
    return _meter.create_histogram(
        f"holdfast.{name}", "s", meaning, explicit_bucket_boundaries_advisory=bounds
    )


first_token = _seconds("first_token", "from a stream's creation to its first text event", _LONG)
token_rate = _meter.create_histogram(
    "holdfast.token_rate", "{token}/s", "output tokens of a stage by its run time"
)
queue_wait = _seconds("queue_wait", "from a stream's creation to its first claim", _LONG)
attempts = _meter.create_histogram(
    "holdfast.attempts",
    "{attempt}",
    "claims that an ended stream took",
    explicit_bucket_boundaries_advisory=(1, 2, 3, 5, 10, 20, 50),
)
resets = _meter.create_counter("holdfast.resets", "{reset}", "attempts that differed from what was shown")
tools_replayed = _meter.create_counter(
    "holdfast.tools_replayed", "{call}", "tool calls of an earlier attempt, answered from the log"
)
readers = _meter.create_up_down_counter("holdfast.readers", "{reader}", "connections that follow a stream")
append_time = _seconds("append", "one append, as the worker sees it", _SHORT)
request_time = _seconds("request", "from a request to the beginning of its answer", _SHORT)
refusals = _meter.create_counter(
    "holdfast.refusals", "{answer}", "answers that are problems, and readers sent away, by code"
)
started = _meter.create_counter("holdfast.streams_started", "{stream}", "streams whose job is in the queue")
ended = _meter.create_counter("holdfast.streams_ended", "{stream}", "streams ended here, by status and code")
tokens = _meter.create_counter("holdfast.tokens", "{token}", "tokens of streams that have ended, by kind")
running = _meter.create_up_down_counter("holdfast.running", "{attempt}", "attempts that run here now")
takeovers = _meter.create_counter(
    "holdfast.takeovers", "{claim}", "claims of a job that an earlier attempt had begun, or handed over"
)
revived = _meter.create_counter("holdfast.revived", "{job}", "jobs that nobody held, enqueued again")
direct_starts = _meter.create_counter(
    "holdfast.direct_starts", "{job}", "jobs that the process which took the POST has run at once"
)
webhooks = _meter.create_counter(
    "holdfast.webhooks", "{try}", "tries of webhooks: sent, again (after a pause) or dead (no more of them)"
)
# Returns the text and the media type for `/metrics`. None if the settings do not enable metrics.
exposition: Callable[[], Awaitable[tuple[bytes, str]]] | None = None


class QueueDepth:
    """The metric of jobs that are queued or running.

    Every process reports the same number, so use the largest value, not the sum.
    """

    def __init__(self) -> None:
        self.ask: Callable[[], int | None] = lambda: None  # called in a thread of the metrics
        _meter.create_observable_gauge(
            "holdfast.queue_depth",
            [self._observe],
            "{job}",
            "jobs that are queued or running, of all processes",
        )

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        depth = self.ask()
        return [] if depth is None else [Observation(depth)]


queue_depth = QueueDepth()


class RelayLag:
    """The metric of how late a published block arrives.

    The time of a block is by Redis's clock. So the difference between that clock and the clock of this
    process is stored.
    """

    def __init__(self) -> None:
        self._seconds = _meter.create_histogram(
            "holdfast.relay_lag", "s", "from an append in the store to its arrival in a relaying process"
        )
        self._ahead_ms: float | None = None

    def clock(self, redis_ms: int) -> None:
        """Store the difference between Redis's clock and ours.

        The answer of Redis took some time to arrive, so a lag is reported too long rather than too short.
        """
        self._ahead_ms = redis_ms - time.time() * 1000

    def heard(self, at_ms: int) -> None:
        """Record the lag of a block that was published at this time of Redis's clock."""
        if self._ahead_ms is not None:
            self._seconds.record(max(0.0, time.time() + (self._ahead_ms - at_ms) / 1000))


relay_lag = RelayLag()


def begin() -> None:
    """Report zero for all counters at the start.

    Otherwise a rate would miss the first increase of a counter.
    """
    for counter in (resets, tools_replayed, takeovers, revived, direct_starts, readers, running):
        counter.add(0)
    for outcome in ("sent", "again", "dead"):
        webhooks.add(0, {"outcome": outcome})


def quiet(settings: Settings) -> None:
    """Set the log level of our loggers, and WARNING for libraries that log each call."""
    logging.getLogger(NAME).setLevel(settings.log_level.upper())
    for chatty in ("azure", "httpcore", "httpcore2", "httpx", "httpx2", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def context_of(traceparent: str) -> Any:
    """Return the trace context of a `traceparent` from another process."""
    return _propagator.extract({"traceparent": traceparent} if traceparent else {})


def traceparent_of(span: Span) -> str:
    """Return the `traceparent` that carries a span's context elsewhere; empty if there is no trace."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span))
    return carrier.get("traceparent", "")


@contextmanager
def span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, *, parent: str = "", link: str = "", **attributes: Any
) -> Iterator[Span]:
    """Make a span the current one for a block.

    `parent` and `link` are traceparents. `a_b` in an attribute's name means `a.b`. Of an exception only the
    type is recorded, because its text may quote a prompt.
    """
    links = [Link(trace.get_current_span(context_of(link)).get_span_context())] if link else None
    with tracer.start_as_current_span(
        name,
        context_of(parent) if parent else None,
        kind,
        attributes={key.replace("_", "."): value for key, value in attributes.items()},
        links=links,
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        try:
            yield made
        except Exception as error:
            failed(made, type(error).__name__)
            raise


def failed(made: Span, why: str) -> None:
    """Mark a span as failed, with a code or the type of an exception."""
    made.set_status(Status(StatusCode.ERROR, why))
    made.set_attribute("error.type", why)


def is_on() -> bool:
    """Return whether spans are exported. The default provider of the API has no `resource`."""
    return hasattr(trace.get_tracer_provider(), "resource")
