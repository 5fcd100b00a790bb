"""Exporters to Application Insights that are made, and imported, when there is something to export.

Azure's package takes half a second of a core to import. The SDK exports in threads of its own, seconds after
a process has begun to serve, so a cold start need not wait for it.
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

# Azure's own exporter asks for these. The SDK wants to know them before there is an exporter.
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
    """What `make` returns, made once at the first call; None, and one line in the log, where it raises."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._tried = False
        self.made: Made | None = None

    def __call__(self) -> Made | None:
        """From any thread."""
        with self._lock:
            if not self._tried:
                self._tried = True
                try:
                    self.made = self._make()
                except Exception as error:  # a product without telemetry is better than none
                    _log.error(
                        "no telemetry: APPLICATIONINSIGHTS_CONNECTION_STRING cannot be used (%s)",
                        type(error).__name__,
                    )
            return self.made


class LaterSpans(SpanExporter):
    """The exporter of spans."""

    def __init__(self, settings: Settings) -> None:
        self._later = Later(lambda: _spans(settings))

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """In the SDK's thread."""
        exporter = self._later()
        return SpanExportResult.FAILURE if exporter is None else exporter.export(spans)

    def shutdown(self) -> None:
        """Nothing is made for it."""
        if self._later.made is not None:
            self._later.made.shutdown()


class LaterMetrics(MetricExporter):
    """The exporter of metrics."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(preferred_temporality=TEMPORALITY)
        self._later = Later(lambda: _metrics(settings))

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """In the SDK's thread."""
        exporter = self._later()
        if exporter is None:
            return MetricExportResult.FAILURE
        return exporter.export(metrics_data, timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Azure's exporter sends each batch when it gets it."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing is made for it."""
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
