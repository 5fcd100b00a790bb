"""Endpoints for an operator's machines: health, readiness and metrics.

Health and readiness need no authentication and show only states. Metrics require their own key, if one is
set.
"""

from __future__ import annotations

import hmac

from starlette.requests import Request
from starlette.responses import Response

from gateway.callers.bearer import bearer
from gateway.protocol.errors import RouteNotFound, Unauthorized
from gateway.streams.service import Gateway
from gateway.web.answers import answered, json_answer
from gateway.web.headers import SECURE

RETRY_AFTER_SECONDS = 2


@answered("/health", probe=True)
async def health(gateway: Gateway, request: Request) -> Response:
    """GET /health: say that this process is alive."""
    return json_answer({"status": "ok", "model": gateway.model_state()})


@answered("/ready", probe=True)
async def ready(gateway: Gateway, request: Request) -> Response:
    """GET /ready: 200 if every part can serve, else 503. Both answers name each part's state."""
    found = await gateway.readiness()
    if found.good:
        return json_answer(found.document())
    return json_answer(found.document(), 503, {"retry-after": str(RETRY_AFTER_SECONDS)})


@answered("/metrics", probe=True)
async def metrics(gateway: Gateway, request: Request) -> Response:
    """GET /metrics: the counters of this process, for Prometheus.

    The path exists only if the settings turn it on.
    """
    if gateway.exposition is None:
        raise RouteNotFound
    key = gateway.settings.metrics_key
    if key and not hmac.compare_digest(bearer(request.headers).encode(), key.encode()):
        raise Unauthorized
    text, media_type = await gateway.exposition()
    headers = {"cache-control": "no-store", **SECURE, "content-type": media_type}
    return Response(text, headers=headers)
