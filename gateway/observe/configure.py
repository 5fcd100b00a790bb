"""Sets up the exporters that the settings name. OpenTelemetry's SDK is loaded only where there is one."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.observe.telemetry import is_on
from gateway.settings import Settings

_log = logging.getLogger("holdfast.telemetry")


def configure(settings: Settings) -> Callable[[], None]:
    """Set up the exporters that the settings name; what is answered flushes and ends them.

    Nothing is done where there are none, or where the platform has set up its own.
    """
    if not (settings.otlp_endpoint or settings.app_insights or settings.metrics):
        return lambda: None
    if is_on():
        _log.warning("the platform exports traces and metrics by itself: our settings for it do nothing")
        return lambda: None
    try:
        from gateway.observe import export

        return export.set_up(settings)
    except Exception as error:  # a product without telemetry is better than none
        names = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": settings.otlp_endpoint,
            "APPLICATIONINSIGHTS_CONNECTION_STRING": settings.app_insights,
        }
        name = next((name for name, value in names.items() if value), "GATEWAY_METRICS")
        _log.error("no telemetry: %s cannot be used (%s)", name, type(error).__name__)
        return lambda: None
