"""Foreign wire formats: the same log, as clients that people already have read it (`docs/formats.md`)."""

from __future__ import annotations

from gateway.formats import a2a, agui, ai_sdk, durable, langgraph, mcp, openai
from gateway.formats.base.serving import Route
from gateway.formats.langgraph import threads
from gateway.formats.openai import common
from gateway.web import streams
from gateway.web.answers import Shape, problem

# A format is a folder, and its routes here.
_ROUTES: tuple[Route, ...] = (
    *langgraph.ROUTES,
    *ai_sdk.ROUTES,
    *openai.ROUTES,
    *durable.ROUTES,
    *agui.ROUTES,
    *a2a.ROUTES,
    *mcp.ROUTES,
)


def _with_preflights(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """A page of another origin asks for leave at every path."""
    paths = dict.fromkeys(route.path for route in routes)
    asked = (Route("OPTIONS", path, streams.preflight, open=True) for path in paths)
    return (*routes, *asked)


def shape_at(path: str) -> Shape:
    """How a refusal is told at this path, also where no route is: in the words of the format that has it."""
    first = path.split("/", 2)[1] if path.startswith("/") else ""
    return _SHAPES.get(first, problem)


_SHAPES: dict[str, Shape] = {  # by what its paths begin with
    **dict.fromkeys(("threads", "runs", "assistants"), threads.refused),
    "v1": common.refusal,
    "agui": agui.refused,
}
ROUTES = _with_preflights(_ROUTES)
__all__ = ["ROUTES", "Route", "shape_at"]
