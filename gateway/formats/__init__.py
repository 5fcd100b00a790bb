"""Foreign wire formats: the same log, as clients that people already have read it (`docs/formats.md`)."""

from __future__ import annotations

from gateway import handlers
from gateway.formats import openai_chat, openai_models, openai_responses
from gateway.formats.serving import Route

# A format is a file, and its routes here.
_ROUTES: tuple[Route, ...] = (
    # OpenAI
    Route("POST", "/v1/chat/completions", openai_chat.openai_chat_completions),
    Route("GET", "/v1/models", openai_models.openai_models),
    Route("GET", "/v1/models/{model}", openai_models.openai_model),
    Route("POST", "/v1/responses", openai_responses.openai_responses_create),
    Route("GET", "/v1/responses/{id}", openai_responses.openai_responses_retrieve, open=True),
    Route("POST", "/v1/responses/{id}/cancel", openai_responses.openai_responses_cancel),
)


def _with_preflights(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """A page of another origin asks for leave at every path."""
    paths = dict.fromkeys(route.path for route in routes)
    asked = (Route("OPTIONS", path, handlers.preflight, open=True) for path in paths)
    return (*routes, *asked)


ROUTES = _with_preflights(_ROUTES)
__all__ = ["ROUTES", "Route"]
