"""Foreign wire formats: the same log, as clients that people already have read it (`docs/formats.md`)."""

from __future__ import annotations

from gateway.formats.ai_sdk import chat
from gateway.formats.base.serving import Route
from gateway.formats.durable import endpoints
from gateway.formats.langgraph import runs, state
from gateway.formats.openai import chat as openai_chat
from gateway.formats.openai import models, responses
from gateway.web import streams

# A format is a file, and its routes here.
_ROUTES: tuple[Route, ...] = (
    *runs.ROUTES,
    *state.ROUTES,
    *chat.ROUTES,
    *openai_chat.ROUTES,
    *models.ROUTES,
    *responses.ROUTES,
    *endpoints.ROUTES,
)


def _with_preflights(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """A page of another origin asks for leave at every path."""
    paths = dict.fromkeys(route.path for route in routes)
    asked = (Route("OPTIONS", path, streams.preflight, open=True) for path in paths)
    return (*routes, *asked)


ROUTES = _with_preflights(_ROUTES)
__all__ = ["ROUTES", "Route"]
