"""The modules that an instance imports before its first request.

The others are imported later and still work.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from azure.monitor.opentelemetry.exporter.export.metrics import _exporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import SpanExportResult

from gateway.observe.export_later import TEMPORALITY, LaterMetrics, LaterSpans
from gateway.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
CONNECTION = "InstrumentationKey=00000000-0000-0000-0000-000000000001;IngestionEndpoint=https://in.invalid/"
TEMPLATES = {
    "GATEWAY_QUEUE": "azure-storage",
    "AzureWebJobsStorage__queueServiceUri": "https://st.queue.invalid",
    "REDIS_URL": "rediss://redis.invalid:10000",
    "GATEWAY_REDIS_AUTH": "entra",
    "AZURE_OPENAI_ENDPOINT": "https://model.invalid/",
    "OPENAI_API_VERSION": "v1",
    "AZURE_CLIENT_ID": "00000000-0000-0000-0000-000000000001",
    "APPLICATIONINSIGHTS_CONNECTION_STRING": CONNECTION,
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": "Authorization=AAD",
}
# LATER: each import needs half a second or more of processor time. NEVER: modules of another host, or for
# developers.
LATER = (
    "azure.monitor",
    "azure.identity",
    "langchain_core",
    "langchain",
    "langgraph",
    "langchain_openai",
    "numpy",
)
NEVER = ("fakeredis", "lupa", "uvloop", "httptools", "rich")
PROGRAM = "import json, sys, function_app; json.dump(sorted(sys.modules), sys.stdout)"


@pytest.mark.functions
def test_before_the_first_request_only_what_it_needs_is_imported() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**environment, **TEMPLATES},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(ran.stdout))
    assert "gateway.observe.export" in loaded
    assert {name for name in loaded if name.startswith(LATER + NEVER) and not _is_ours(name)} == set()


def _is_ours(name: str) -> bool:
    return name.startswith(("gateway", "workers"))


def test_the_sdk_is_told_what_azures_exporter_would_tell() -> None:
    assert TEMPORALITY == _exporter.APPLICATION_INSIGHTS_METRIC_TEMPORALITIES


def test_a_connection_that_is_none_is_told_once_and_fails_no_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = Settings(app_insights="no connection string")
    spans, measures = LaterSpans(settings), LaterMetrics(settings)
    with caplog.at_level(logging.ERROR, "holdfast.telemetry"):
        assert [spans.export([]) for _ in range(3)] == [SpanExportResult.FAILURE] * 3
        assert measures.export(MetricsData([])) is MetricExportResult.FAILURE
    told = [record.getMessage() for record in caplog.records]
    assert told == ["no telemetry: APPLICATIONINSIGHTS_CONNECTION_STRING cannot be used (ValueError)"] * 2
    assert settings.app_insights not in "".join(told)
    spans.shutdown()
    measures.shutdown()
