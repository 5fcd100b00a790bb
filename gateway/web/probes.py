"""What an operator's machines ask: is it alive, can it serve, what does it count.

Liveness and readiness need no leave and tell only states; metrics ask for their own key where there is one.
"""

from __future__ import annotations

import hmac

from starlette.requests import Request
from starlette.responses import Response

from gateway.callers.auth import bearer
from gateway.protocol.errors import RouteNotFound, Unauthorized
from gateway.streams.service import Gateway
from gateway.web.answers import answered, json_answer
from gateway.web.headers import SECURE

RETRY_AFTER_SECONDS = 2


@answered("/health", probe=True)
async def health(gateway: Gateway, request: Request) -> Response:
    """GET /health: this process is alive."""
    return json_answer({"status": "ok", "model": gateway.model_state()})


@answered("/ready", probe=True)
async def ready(gateway: Gateway, request: Request) -> Response:
    """GET /ready: 200 when every part is well enough to serve, else 503; both name each part's state."""
    found = await gateway.readiness()
    if found.good:
        return json_answer(found.document())
    return json_answer(found.document(), 503, {"retry-after": str(RETRY_AFTER_SECONDS)})


@answered("/metrics", probe=True)
async def metrics(gateway: Gateway, request: Request) -> Response:
    """GET /metrics: what this process counts, for Prometheus; nothing is here unless the settings say so."""
    if gateway.exposition is None:
        raise RouteNotFound
    key = gateway.settings.metrics_key
    if key and not hmac.compare_digest(bearer(request.headers).encode(), key.encode()):
        raise Unauthorized
    text, media_type = await gateway.exposition()
    headers = {"cache-control": "no-store", **SECURE, "content-type": media_type}
    return Response(text, headers=headers)
