"""GET /openapi.json: the description of exactly this gateway, with its settings and chains."""

from __future__ import annotations

import functools
import json

from starlette.requests import Request
from starlette.responses import Response

from gateway.protocol import sse
from gateway.settings import Settings
from gateway.streams.service import Gateway
from gateway.web.answers import JSON, answered
from gateway.web.headers import SECURE
from gateway.web.openapi.document import document
from gateway.web.where import base


@answered("/openapi.json")
async def openapi(gateway: Gateway, request: Request) -> Response:
    """GET /openapi.json on a host without function keys."""
    return _written(gateway, base(request), function_key=False)


@answered("/openapi.json")
async def openapi_with_function_key(gateway: Gateway, request: Request) -> Response:
    """GET /openapi.json on a platform that requires a function key."""
    return _written(gateway, base(request), function_key=True)


def _written(gateway: Gateway, where: str, *, function_key: bool) -> Response:
    schemas = {name: gateway.inputs.schema(name) for name in gateway.chains}
    text = _text(gateway.settings, sse.dumps(schemas), where, function_key)
    return Response(text, headers={"cache-control": "no-store", **SECURE}, media_type=JSON)


# Small: a process has one gateway. Cached: anybody may request the document.
@functools.lru_cache(maxsize=4)
def _text(settings: Settings, chains: bytes, where: str, function_key: bool) -> bytes:
    return sse.dumps(document(settings, json.loads(chains), base=where, function_key=function_key))
