"""OpenAI's list of models, which some clients ask for first: the chains of this gateway."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.base.serving import Route
from gateway.formats.openai.common import ModelNotFound, refusal
from gateway.streams.service import Gateway
from gateway.web import request_head
from gateway.web.answers import answered, json_answer


@answered("/v1/models", shape=refusal)
async def openai_models(gateway: Gateway, request: Request) -> Response:
    """GET /v1/models: the chains."""
    await request_head.owner(gateway, request)
    return json_answer({"object": "list", "data": list(map(_model, sorted(gateway.chains)))})


@answered("/v1/models/{model}", shape=refusal)
async def openai_model(gateway: Gateway, request: Request) -> Response:
    """GET /v1/models/{model}: one of them."""
    await request_head.owner(gateway, request)
    name = request.path_params["model"]
    if name not in gateway.chains:
        raise ModelNotFound(field="model")
    return json_answer(_model(name))


def _model(chain: str) -> dict[str, Any]:
    return {"id": chain, "object": "model", "created": 0, "owned_by": "holdfast"}


ROUTES = (
    Route("GET", "/v1/models", openai_models),
    Route("GET", "/v1/models/{model}", openai_model),
)
