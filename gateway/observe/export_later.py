"""Exporters to Application Insights that are imported and created at the first export.

The import of Azure's package takes half a second of a CPU core. The SDK exports in its own threads, seconds
after a process has begun to serve. So a cold start need not wait for the import.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from gateway.settings import Settings

if TYPE_CHECKING:
    from azure.monitor.opentelemetry.exporter import AzureMonitorMetricExporter, AzureMonitorTraceExporter

# The temporalities that Azure's own exporter uses. The SDK needs them before the exporter exists.
TEMPORALITY: dict[type, AggregationTemporality] = {
    Counter: AggregationTemporality.DELTA,
    Histogram: AggregationTemporality.DELTA,
    ObservableCounter: AggregationTemporality.DELTA,
    ObservableGauge: AggregationTemporality.CUMULATIVE,
    ObservableUpDownCounter: AggregationTemporality.CUMULATIVE,
    UpDownCounter: AggregationTemporality.CUMULATIVE,
}
Made = TypeVar("Made")
_log = logging.getLogger("holdfast.telemetry")


class Later(Generic[Made]):
    """Creates an object with `make` at the first call, once.

    If `make` raises, each call returns None, and one line is logged.
    """

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._tried = False
        self.made: Made | None = None

    def __call__(self) -> Made | None:
        """Return the object, or None. Any thread may call this."""
        with self._lock:
            if not self._tried:
                self._tried = True
                try:
                    self.made = self._make()
                except Exception as error:  # the process must run even without telemetry
                    _log.error(
                        "no telemetry: APPLICATIONINSIGHTS_CONNECTION_STRING cannot be used (%s)",
                        type(error).__name__,
                    )
            return self.made


class LaterSpans(SpanExporter):
    """Exports spans. It creates Azure's exporter at the first export."""

    def __init__(self, settings: Settings) -> None:
        self._later = Later(lambda: _spans(settings))

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans. The SDK calls this in its own thread."""
        exporter = self._later()
        return SpanExportResult.FAILURE if exporter is None else exporter.export(spans)

    def shutdown(self) -> None:
        """Stop the exporter if it was created."""
        if self._later.made is not None:
            self._later.made.shutdown()


class LaterMetrics(MetricExporter):
    """Exports metrics. It creates Azure's exporter at the first export."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(preferred_temporality=TEMPORALITY)
        self._later = Later(lambda: _metrics(settings))

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Export metrics. The SDK calls this in its own thread."""
        exporter = self._later()
        if exporter is None:
            return MetricExportResult.FAILURE
        return exporter.export(metrics_data, timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Do nothing: Azure's exporter sends each batch at once."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Stop the exporter if it was created."""
        if self._later.made is not None:
            self._later.made.shutdown(timeout_millis, **kwargs)


def _spans(settings: Settings) -> AzureMonitorTraceExporter:
    from azure.monitor.opentelemetry.exporter import AzureMonitorTraceExporter

    return AzureMonitorTraceExporter(**_given(settings))


def _metrics(settings: Settings) -> AzureMonitorMetricExporter:
    from azure.monitor.opentelemetry.exporter import AzureMonitorMetricExporter

    return AzureMonitorMetricExporter(**_given(settings))


def _given(settings: Settings) -> dict[str, Any]:
    given: dict[str, Any] = {"connection_string": settings.app_insights}
    said = dict(part.split("=", 1) for part in settings.app_insights_auth.split(";") if "=" in part)
    if said.get("Authorization") == "AAD":
        from gateway.azure import credentials

        given["credential"] = credentials.blocking_credential(
            said.get("ClientId") or settings.azure_client_id
        )
    return given
