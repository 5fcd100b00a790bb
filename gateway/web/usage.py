"""GET /usage: how many tokens the caller's streams have used, and the caller's limits."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.protocol import ANONYMOUS
from gateway.protocol.errors import NotAcceptable
from gateway.store.usage import Usage
from gateway.streams.service import Gateway
from gateway.web import request_head
from gateway.web.answers import JSON, answered, json_answer
from gateway.web.negotiate import negotiate


@answered("/usage")
async def usage(gateway: Gateway, request: Request) -> Response:
    """GET /usage: tokens of today (UTC) and of the last minute, each with the caller's limit."""
    owner = await request_head.owner(gateway, request)
    request_head.check_apart(gateway)
    if negotiate(request.headers.getlist("accept"), (JSON,), JSON) is None:
        raise NotAcceptable
    used = await Usage(gateway.parts.redis).of(owner)
    return json_answer(used.document(None if owner == ANONYMOUS else gateway.plans.of(owner)))
