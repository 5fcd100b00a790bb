"""Foreign wire formats: the same log, as clients that people already have read it (`docs/formats.md`)."""

from __future__ import annotations

from gateway import handlers
from gateway.formats import (
    ai_sdk_chat,
    durable,
    langgraph_runs,
    langgraph_state,
    openai_chat,
    openai_models,
    openai_responses,
)
from gateway.formats.serving import Route

# A format is a file, and its routes here.
_ROUTES: tuple[Route, ...] = (
    *langgraph_runs.ROUTES,
    *langgraph_state.ROUTES,
    *ai_sdk_chat.ROUTES,
    *openai_chat.ROUTES,
    *openai_models.ROUTES,
    *openai_responses.ROUTES,
    *durable.ROUTES,
)


def _with_preflights(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """A page of another origin asks for leave at every path."""
    paths = dict.fromkeys(route.path for route in routes)
    asked = (Route("OPTIONS", path, handlers.preflight, open=True) for path in paths)
    return (*routes, *asked)


ROUTES = _with_preflights(_ROUTES)
__all__ = ["ROUTES", "Route"]
