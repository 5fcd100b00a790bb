"""Foreign wire formats: the same log, as clients that people already have read it (`docs/formats.md`)."""

from __future__ import annotations

from gateway.formats import ai_sdk, durable, langgraph, openai
from gateway.formats.base.serving import Route
from gateway.web import streams

# A format is a folder, and its routes here.
_ROUTES: tuple[Route, ...] = (
    *langgraph.ROUTES,
    *ai_sdk.ROUTES,
    *openai.ROUTES,
    *durable.ROUTES,
)


def _with_preflights(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """A page of another origin asks for leave at every path."""
    paths = dict.fromkeys(route.path for route in routes)
    asked = (Route("OPTIONS", path, streams.preflight, open=True) for path in paths)
    return (*routes, *asked)


ROUTES = _with_preflights(_ROUTES)
__all__ = ["ROUTES", "Route"]
