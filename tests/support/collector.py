"""An OTLP collector in memory. Processes export to it over HTTP, as to the collector of an operator."""

from __future__ import annotations

import asyncio
import gzip
import socket
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

LIMIT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Span:
    """One exported span."""

    service: str
    name: str
    kind: int
    trace: str
    id: str
    parent: str
    links: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)


class Collector:
    """`async with Collector() as collector`; then `collector.environment()` gives the settings for a process
    of any kind."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: dict[str, str] = {}  # name → unit
        self.raw: list[bytes] = []
        self._changed = asyncio.Condition()

    def environment(self, service: str) -> dict[str, str]:
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_SERVICE_NAME": service,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
        }

    async def until_spans(self, trace: str, names: set[str]) -> list[Span]:
        """Wait until spans with all these names have arrived; return the spans of the trace."""
        async with asyncio.timeout(LIMIT_SECONDS), self._changed:
            await self._changed.wait_for(lambda: names <= {span.name for span in self._of(trace)})
        return self._of(trace)

    async def until_metrics(self, names: set[str]) -> None:
        async with asyncio.timeout(LIMIT_SECONDS), self._changed:
            await self._changed.wait_for(lambda: names <= self.metrics.keys())

    def _of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]

    async def __aenter__(self) -> Self:
        bound = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        routes = [
            Route("/v1/traces", self._traces, methods=["POST"]),
            Route("/v1/metrics", self._metrics, methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), log_config=None, lifespan="off")
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server._serve([bound]), name="collector")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._task

    async def _traces(self, request: Request) -> Response:
        message = ExportTraceServiceRequest.FromString(await self._body(request))
        for resource in message.resource_spans:
            service = _attributes(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [_span(service, one) for one in scope.spans if scope.scope.name == "holdfast"]
        await self._tell()
        return Response(status_code=200)

    async def _metrics(self, request: Request) -> Response:
        message = ExportMetricsServiceRequest.FromString(await self._body(request))
        for resource in message.resource_metrics:
            for scope in resource.scope_metrics:
                self.metrics |= {metric.name: metric.unit for metric in scope.metrics}
        await self._tell()
        return Response(status_code=200)

    async def _body(self, request: Request) -> bytes:
        body = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.raw.append(body)
        return body

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _span(service: str, one: Any) -> Span:
    return Span(
        service,
        one.name,
        one.kind,
        one.trace_id.hex(),
        one.span_id.hex(),
        one.parent_span_id.hex(),
        [link.span_id.hex() for link in one.links],
        _attributes(one.attributes),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
