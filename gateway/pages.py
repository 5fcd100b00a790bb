"""What a person opens in a browser."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from gateway.answers import answered
from gateway.gateway import Gateway
from gateway.headers import SECURE, policy_of

_WEB = Path(__file__).parent.parent / "web"


@answered("/")
async def page(gateway: Gateway, request: Request) -> Response:
    """GET /: the page."""
    text = (_WEB / "index.html").read_text()
    headers = {**SECURE, "cache-control": "no-cache", "content-security-policy": policy_of(text)}
    return Response(text, headers=headers, media_type="text/html")
