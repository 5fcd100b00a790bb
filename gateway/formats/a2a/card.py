"""The agent card: what a chain is to A2A's clients, and where it is asked. Raises as `request_head.owner`.

The address in it is the one by which the card was asked for: a gateway does not know its own name.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.a2a.request import INPUTS, OUTPUTS
from gateway.formats.base.serving import Route
from gateway.protocol.errors import RouteNotFound
from gateway.streams.service import Gateway
from gateway.web import request_head
from gateway.web.answers import answered, json_answer
from gateway.web.where import base

VERSION = "1.0"
WELL_KNOWN = "/.well-known/agent-card.json"
INPUT_SCHEMA = "urn:holdfast:a2a:input-schema"
_SCHEMES = ("http", "https")


@answered(WELL_KNOWN)
async def a2a_default_card(gateway: Gateway, request: Request) -> Response:
    """The card of the chain of a request that names none."""
    await request_head.owner(gateway, request)
    return _card(gateway, request, gateway.settings.default_chain)


@answered("/a2a/{chain}/.well-known/agent-card.json")
async def a2a_card(gateway: Gateway, request: Request) -> Response:
    """A chain's card."""
    await request_head.owner(gateway, request)
    return _card(gateway, request, request.path_params["chain"])


def _card(gateway: Gateway, request: Request, chain: str) -> Response:
    if chain not in gateway.chains:
        raise RouteNotFound
    schema = gateway.inputs.schema(chain)
    known = {
        "uri": INPUT_SCHEMA,
        "description": "The JSON Schema of a message whose only part is data.",
        "params": schema,
    }
    about = f"The chain {chain}, in the stages {', '.join(gateway.chains[chain])}."
    where = f"{_origin(request)}{base(request)}/a2a/{quote(chain, safe='')}"
    skill = {"id": chain, "name": chain, "description": about, "tags": ["chain"]}
    card: dict[str, Any] = {
        "name": chain,
        "description": about,
        "version": "1",
        "supportedInterfaces": [
            {"url": where, "protocolBinding": binding, "protocolVersion": VERSION} for binding in ("JSONRPC",)
        ],
        "capabilities": {
            "streaming": True,
            "pushNotifications": False,
            "extendedAgentCard": False,
            "extensions": [known] if schema is not None else [],
        },
        "defaultInputModes": list(INPUTS),
        "defaultOutputModes": list(OUTPUTS),
        "skills": [skill],
    }
    if gateway.settings.auth in ("keys", "jwt"):
        card["securitySchemes"] = {"bearer": {"httpAuthSecurityScheme": {"scheme": "bearer"}}}
        card["securityRequirements"] = [{"schemes": {"bearer": {"list": []}}}]
    return json_answer(card)


def _origin(request: Request) -> str:
    """By which scheme and name this request came; a proxy in front says the scheme."""
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    scheme = forwarded if forwarded in _SCHEMES else request.url.scheme
    return f"{scheme}://{request.headers.get('host', 'localhost')}"


ROUTES = (
    Route("GET", WELL_KNOWN, a2a_default_card),
    Route("GET", f"/a2a/{{chain}}{WELL_KNOWN}", a2a_card),
)
