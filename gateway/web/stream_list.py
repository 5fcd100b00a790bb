"""GET /streams: the caller's own streams."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.protocol.errors import NotAcceptable
from gateway.streams import rows
from gateway.streams.service import Gateway
from gateway.web import request_head
from gateway.web.answers import JSON, answered, json_answer
from gateway.web.negotiate import negotiate


@answered("/streams")
async def streams(gateway: Gateway, request: Request) -> Response:
    """GET /streams: `limit` of them, those behind the cursor `before`, which are as the filters say."""
    owner = await request_head.owner(gateway, request)
    request_head.check_apart(gateway)
    if negotiate(request.headers.getlist("accept"), (JSON,), JSON) is None:
        raise NotAcceptable
    keys = frozenset(gateway.settings.list_metadata.split())
    asked = rows.filter_of(request.query_params.multi_items(), keys)
    return json_answer(await rows.page(gateway, owner, asked))
