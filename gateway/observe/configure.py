"""Set up the exporters that the settings name.

OpenTelemetry's SDK is imported only if there is an exporter.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.observe.telemetry import is_on
from gateway.settings import Settings

_log = logging.getLogger("holdfast.telemetry")


def configure(settings: Settings) -> Callable[[], None]:
    """Set up the exporters that the settings name. Return a function that flushes and stops them.

    Do nothing if the settings name no exporter, or if the platform has set up its own.
    """
    if not (settings.otlp_endpoint or settings.app_insights or settings.metrics):
        return lambda: None
    if is_on():
        _log.warning("the platform exports traces and metrics by itself: our settings for it do nothing")
        return lambda: None
    try:
        from gateway.observe import export

        return export.set_up(settings)
    except Exception as error:  # the process must run even without telemetry
        names = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": settings.otlp_endpoint,
            "APPLICATIONINSIGHTS_CONNECTION_STRING": settings.app_insights,
        }
        name = next((name for name, value in names.items() if value), "GATEWAY_METRICS")
        _log.error("no telemetry: %s cannot be used (%s)", name, type(error).__name__)
        return lambda: None
