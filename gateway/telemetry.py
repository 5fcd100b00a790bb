"""Traces and metrics, by OpenTelemetry's API; an exporter only where the settings name one.

One trace goes from the POST through the queue and every attempt to the model's calls: the job carries its
context, an attempt links to the one before. Names follow the semantic conventions for messaging and
generative AI where these have one. Ids, names, numbers and states are recorded, never what anybody said.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.settings import Settings

NAME = "holdfast"
tracer = trace.get_tracer(NAME)
_meter = metrics.get_meter(NAME)
_log = logging.getLogger("holdfast.telemetry")
_propagator = TraceContextTextMapPropagator()

first_token = _meter.create_histogram(
    "holdfast.first_token", "s", "from a stream's creation to its first text event"
)
token_rate = _meter.create_histogram(
    "holdfast.token_rate", "{token}/s", "output tokens of a stage by its run time"
)
queue_wait = _meter.create_histogram(
    "holdfast.queue_wait", "s", "from a stream's creation to its first claim"
)
attempts = _meter.create_histogram("holdfast.attempts", "{attempt}", "claims that an ended stream took")
resets = _meter.create_counter("holdfast.resets", "{reset}", "attempts that differed from what was shown")
readers = _meter.create_up_down_counter("holdfast.readers", "{reader}", "connections that follow a stream")
append_time = _meter.create_histogram("holdfast.append", "s", "one append, as the worker sees it")


class RelayLag:
    """How late a published block arrives: its time is Redis's, so that clock's distance to ours is kept."""

    def __init__(self) -> None:
        self._seconds = _meter.create_histogram(
            "holdfast.relay_lag", "s", "from an append in the store to its arrival in a relaying process"
        )
        self._ahead_ms: float | None = None

    def clock(self, redis_ms: int) -> None:
        """What Redis's clock says now; its answer was on its way, so a lag is told rather too long."""
        self._ahead_ms = redis_ms - time.time() * 1000

    def heard(self, at_ms: int) -> None:
        """A block of this time has arrived."""
        if self._ahead_ms is not None:
            self._seconds.record(max(0.0, time.time() + (self._ahead_ms - at_ms) / 1000))


relay_lag = RelayLag()


def configure(settings: Settings) -> Callable[[], None]:
    """Set up the exporter that the settings name; what is answered flushes and ends it.

    Nothing is done where there is none, or where the platform has set up its own.
    """
    if not (settings.otlp_endpoint or settings.app_insights) or is_on():
        return lambda: None
    try:
        from gateway import exporters

        return exporters.set_up(settings)
    except Exception as error:  # a product without telemetry is better than none
        name = (
            "OTEL_EXPORTER_OTLP_ENDPOINT"
            if settings.otlp_endpoint
            else "APPLICATIONINSIGHTS_CONNECTION_STRING"
        )
        _log.error("no telemetry: %s cannot be used (%s)", name, type(error).__name__)
        return lambda: None


def quiet(settings: Settings) -> None:
    """Our lines at the level that is set; of the clients below us, which tell of each call, warnings."""
    logging.getLogger(NAME).setLevel(settings.log_level.upper())
    for chatty in ("azure", "httpx", "httpx2", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def context_of(traceparent: str) -> Any:
    """A trace context that came from elsewhere."""
    return _propagator.extract({"traceparent": traceparent} if traceparent else {})


def traceparent_of(span: Span) -> str:
    """What carries a span's context elsewhere; empty when there is no trace."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span))
    return carrier.get("traceparent", "")


@contextmanager
def span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, *, parent: str = "", link: str = "", **attributes: Any
) -> Iterator[Span]:
    """A current span. `parent` and `link` are traceparents; `a_b` in an attribute's name means `a.b`.

    An exception is recorded by its type: its text may quote a prompt.
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
    """Mark a span as failed, with a code or a type."""
    made.set_status(Status(StatusCode.ERROR, why))
    made.set_attribute("error.type", why)


def is_on() -> bool:
    """Whether spans go anywhere: the API's own provider knows no resource."""
    return hasattr(trace.get_tracer_provider(), "resource")
