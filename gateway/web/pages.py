"""The files that a browser loads: the page and its parts.

The files are in an exact list. The path of a request never reaches the file system.

A browser caches each file and checks it by its ETag (RFC 9110, 8.8.3). So a new release is loaded at once,
and an unchanged file is not sent again.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from gateway.protocol.errors import RouteNotFound
from gateway.runtime.files import shipped
from gateway.streams.service import Gateway
from gateway.web.answers import answered
from gateway.web.headers import PAGE_POLICY, SECURE

PAGE = "index.html"
DOCS = "docs.html"
PARTS = frozenset(
    (
        "about.js",
        "answer.css",
        "answer.js",
        "client.js",
        "code.js",
        "composer.js",
        "details.js",
        "docs.css",
        "docs.js",
        "dom.js",
        "growing.js",
        "highlight.js",
        "icon.svg",
        "kept.js",
        "losing.js",
        "markdown.js",
        "page.css",
        "page.js",
        "question.js",
        "rail.js",
        "reader.js",
        "said.js",
        "scroll.js",
        "second.js",
        "theme.js",
        "turn.js",
        "vendor/marked.js",
        "vendor/purify.js",
        "ways.js",
        "words.js",
    )
)
_MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_WEB = shipped("web")


@answered("/")
async def page(gateway: Gateway, request: Request) -> Response:
    """GET /: the page.

    The page names its parts by relative addresses, so the page's own path must end with a slash.
    """
    if not request.url.path.endswith("/"):
        query = request.url.query
        return Response(status_code=308, headers={**SECURE, "location": f"/?{query}" if query else "/"})
    return _file(PAGE, request)


@answered("/docs")
async def docs(gateway: Gateway, request: Request) -> Response:
    """GET /docs: a page that shows the OpenAPI document."""
    return _file(DOCS, request)


@answered("/web/{name}")
async def part(gateway: Gateway, request: Request) -> Response:
    """GET /web/{name} and /web/vendor/{name}: a part of the page."""
    folder = "vendor/" if request.url.path.rpartition("/")[0].endswith("/web/vendor") else ""
    name = folder + request.path_params["name"]
    if name not in PARTS:
        raise RouteNotFound
    return _file(name, request)


def _file(name: str, request: Request) -> Response:
    body, etag = _read(name)
    headers = {
        **SECURE,
        "cache-control": "no-cache",
        "content-security-policy": PAGE_POLICY,
        "etag": etag,
    }
    known = ",".join(request.headers.getlist("if-none-match")).split(",")
    if any(tag.strip().removeprefix("W/") in (etag, "*") for tag in known):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=_MEDIA_TYPES[Path(name).suffix])


@functools.cache
def _read(name: str) -> tuple[bytes, str]:
    """Read a page or a part of one. Return its bytes and its ETag."""
    body = (_WEB / name).read_bytes()
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'
