"""GET /webhooks/secret: the secret with which the caller's webhooks are signed."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.protocol.errors import NoWebhooks
from gateway.streams.service import Gateway
from gateway.web import request_head
from gateway.web.answers import answered, json_answer
from gateway.webhooks.signature import Secrets


@answered("/webhooks/secret")
async def webhook_secret(gateway: Gateway, request: Request) -> Response:
    """GET: the caller's own secret, made with the first of GATEWAY_WEBHOOK_KEYS."""
    owner = await request_head.owner(gateway, request)
    request_head.check_apart(gateway)
    keys = gateway.settings.webhook_keys.split()
    if not keys:
        raise NoWebhooks
    return json_answer({"secret": Secrets(keys).told(owner)})
