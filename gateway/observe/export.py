"""Set up OpenTelemetry's SDK for the exporter that the settings name. It is imported only if there is one.

Traces and metrics are sent by OTLP or to Application Insights. Prometheus may read the metrics too. OTLP over
HTTP uses its own environment variables (`OTEL_EXPORTER_OTLP_*`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`).
Application Insights uses its connection string, and the identity of this process if keys are disabled.
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
    """Exports only the spans of the gateway.

    A host server may write the query of a URL into its own spans, and a query may contain a stream token.
    """

    def on_end(self, span: ReadableSpan) -> None:
        """Export the span if it is ours, otherwise drop it."""
        if span.instrumentation_scope is not None and span.instrumentation_scope.name == telemetry.NAME:
            super().on_end(span)


class OwnDecision(Sampler):
    """Decides here whether a trace is kept, and ignores the `traceparent` flag of a caller.

    A caller's flag could hide a POST from the operator (`-00`), or force that every POST is kept (`-01`). So
    a span whose parent is in another process is decided like the first span of a trace. A span inside this
    process follows its parent. Those samplers of the SDK that use more than the parent use the id of the
    trace (`traceidratio`). So they decide the same in every process.
    """

    def __init__(self, inner: Sampler) -> None:
        """`inner`: the sampler that OTEL_TRACES_SAMPLER names."""
        self._inner = inner

    def should_sample(self, parent_context: Context | None, *given: Any, **named: Any) -> SamplingResult:
        """Ask the inner sampler. A parent in another process is not passed to it."""
        parent = trace.get_current_span(parent_context).get_span_context()
        return self._inner.should_sample(Context() if parent.is_remote else parent_context, *given, **named)

    def get_description(self) -> str:
        """Return a description for the SDK."""
        return f"OwnDecision({self._inner.get_description()})"


def set_up(settings: Settings) -> Callable[[], None]:
    """Set the providers of this process. Return a function that stops them within a bounded time."""
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
        """Flush in a separate thread, and wait for a limited time.

        If the collector does not answer, the SDK ignores its own time limit.
        """
        last = threading.Thread(target=flush, name="telemetry-flush", daemon=True)
        last.start()
        last.join(SHUTDOWN_MS / 1000)

    return end


def _prometheus() -> MetricReader:
    """Return a reader for `/metrics`: our metrics, and memory, CPU time and files of this process."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)

    async def exposition() -> tuple[bytes, str]:
        """Make the text in a thread, because this needs values from the event loop."""
        return await asyncio.to_thread(generate_latest, registry), CONTENT_TYPE_PLAIN_0_0_4

    telemetry.exposition = exposition
    return PrometheusMetricReader(registry=registry, scope_info_enabled=False)


def _otlp() -> tuple[SpanExporter, MetricExporter]:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(), OTLPMetricExporter()
