"""The page and its parts, as OpenAPI's Path Items. No I/O."""

from __future__ import annotations

from typing import Any

from gateway.web.openapi import parameters, responses

_KINDS = ("text/javascript", "text/css", "image/svg+xml")


def paths() -> dict[str, dict[str, Any]]:
    """Return the paths of the page. They need no authentication."""
    named = {"parameters": [parameters.part()]}
    return {
        "/": {"get": _file("page", "A page to ask on", ["internal"], "text/html")},
        "/docs": {"get": _file("docs", "This document, for people", ["internal"], "text/html")},
        "/web/{name}": {
            **named,
            "get": _file("part", "A part of it", ["no_route", "internal"], *_KINDS),
        },
        "/web/vendor/{name}": {
            **named,
            "get": _file("part_vendor", "A part that others wrote", ["no_route", "internal"], *_KINDS),
        },
    }


def _file(name: str, summary: str, codes: list[str], *kinds: str) -> dict[str, Any]:
    told = {"200": responses.page(*kinds), "304": responses.unchanged(), **responses.problems(codes)}
    return {"operationId": name, "summary": summary, "responses": told}
