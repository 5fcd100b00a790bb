"""OpenTelemetry's SDK, set up for the exporter that the settings name; loaded only where there is one.

Traces and metrics are pushed by OTLP or to Application Insights; metrics may be shown to Prometheus, too.
OTLP over HTTP takes its own environment (`OTEL_EXPORTER_OTLP_*`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`);
Application Insights takes its connection string, and this process's identity where keys are off.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult

from gateway.observe import telemetry
from gateway.observe.export_later import LaterMetrics, LaterSpans
from gateway.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader
    from opentelemetry.sdk.trace.export import SpanExporter

SHUTDOWN_MS = 3000


class OwnSpans(BatchSpanProcessor):
    """Exports our spans alone: a server that we run in may name a query in its own, and so a stream token."""

    def on_end(self, span: ReadableSpan) -> None:
        """Pass it on, or drop it."""
        if span.instrumentation_scope is not None and span.instrumentation_scope.name == telemetry.NAME:
            super().on_end(span)


class OwnDecision(Sampler):
    """Whether a trace is kept is decided here, not by the `traceparent` that a caller sends.

    A caller's flag could hide a POST from the operator (`-00`), or have each one kept whatever was set
    (`-01`). So a span whose parent is another process's is decided as a trace's first span is, and a span
    within this process follows its parent. The SDK's samplers that look at more than the parent go by the
    trace's id (`traceidratio`): they decide alike in every process.
    """

    def __init__(self, inner: Sampler) -> None:
        """`inner`: as OTEL_TRACES_SAMPLER says."""
        self._inner = inner

    def should_sample(self, parent_context: Context | None, *given: Any, **named: Any) -> SamplingResult:
        """Ask the inner one, as if there were no parent where the parent is elsewhere."""
        parent = trace.get_current_span(parent_context).get_span_context()
        return self._inner.should_sample(Context() if parent.is_remote else parent_context, *given, **named)

    def get_description(self) -> str:
        """For the SDK's own use."""
        return f"OwnDecision({self._inner.get_description()})"


def set_up(settings: Settings) -> Callable[[], None]:
    """Set this process's providers; what is answered ends them, in bounded time."""
    resource = Resource.create({"service.name": settings.service_name})
    readers: list[MetricReader] = []
    tracing = TracerProvider(resource=resource, shutdown_on_exit=False)
    if settings.otlp_endpoint or settings.app_insights:
        spans, measures = (
            _otlp() if settings.otlp_endpoint else (LaterSpans(settings), LaterMetrics(settings))
        )
        tracing.sampler = OwnDecision(tracing.sampler)
        tracing.add_span_processor(OwnSpans(spans))
        trace.set_tracer_provider(tracing)
        readers.append(PeriodicExportingMetricReader(measures))
    if settings.metrics:
        readers.append(_prometheus())
    measuring = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
    metrics.set_meter_provider(measuring)
    telemetry.begin()

    def flush() -> None:
        tracing.force_flush(SHUTDOWN_MS)
        tracing.shutdown()
        measuring.shutdown(SHUTDOWN_MS)

    def end() -> None:
        """In a thread that nobody waits for longer: with a silent collector the SDK keeps to no bound."""
        last = threading.Thread(target=flush, name="telemetry-flush", daemon=True)
        last.start()
        last.join(SHUTDOWN_MS / 1000)

    return end


def _prometheus() -> MetricReader:
    """What `/metrics` shows: our metrics, and this process's memory, time and file descriptors."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)

    async def exposition() -> tuple[bytes, str]:
        """In a thread: what is observed is asked of the event loop meanwhile."""
        return await asyncio.to_thread(generate_latest, registry), CONTENT_TYPE_PLAIN_0_0_4

    telemetry.exposition = exposition
    return PrometheusMetricReader(registry=registry, scope_info_enabled=False)


def _otlp() -> tuple[SpanExporter, MetricExporter]:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(), OTLPMetricExporter()
