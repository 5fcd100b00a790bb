"""Endpoints for information about the server, and for LangGraph's assistants.

Each chain is one assistant with the name of the chain. The assistant's id is computed from the name, in the
same way as in LangGraph's server. Every endpoint that accepts the name also accepts the id.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.base.serving import Route
from gateway.formats.langgraph.names import assistant_id, chain_of
from gateway.formats.langgraph.threads import refused, whole_number
from gateway.protocol.errors import Invalid, StreamNotFound
from gateway.streams.service import Gateway
from gateway.streams.start import as_it_is, read_json
from gateway.web import request_head
from gateway.web.answers import answered, json_answer

MOST = 1000
_SINCE = "1970-01-01T00:00:00+00:00"
_VERSION = "0.16.7"  # the version of LangGraph's server that this API follows


@answered("/info", shape=refused)
async def langgraph_info(gateway: Gateway, request: Request) -> Response:
    """GET: return the server's version and features, which clients request first."""
    flags = {"assistants": True, "crons": False, "langsmith": False}
    return json_answer({"version": _VERSION, "flags": flags, "host": {"kind": "self-hosted"}})


@answered("/ok", shape=refused)
async def langgraph_ok(gateway: Gateway, request: Request) -> Response:
    """GET: return `{"ok": true}`, which shows that the server is running."""
    return json_answer({"ok": True})


@answered("/assistants/search", shape=refused)
async def langgraph_assistants(gateway: Gateway, request: Request) -> Response:
    """POST: return the assistants that match `graph_id`, `name` and `metadata`."""
    found = await _sought(gateway, request)
    most = whole_number("limit", found[1].get("limit") or 10, MOST)
    skipped = whole_number("offset", found[1].get("offset") or 0, MOST)
    return json_answer(found[0][skipped : skipped + most])


@answered("/assistants/count", shape=refused)
async def langgraph_assistants_count(gateway: Gateway, request: Request) -> Response:
    """POST: return the number of assistants that match."""
    return json_answer(len((await _sought(gateway, request))[0]))


@answered("/assistants/{id}", shape=refused)
async def langgraph_assistant(gateway: Gateway, request: Request) -> Response:
    """GET: return one assistant."""
    return json_answer(_told(await _named(gateway, request)))


@answered("/assistants/{id}/graph", shape=refused)
async def langgraph_assistant_graph(gateway: Gateway, request: Request) -> Response:
    """GET: return an assistant's nodes and edges. A chain that is not a graph is shown as one node."""
    name = await _named(gateway, request)
    drawn = await gateway.drawn(name)
    if drawn is not None:
        return json_answer(drawn["graph"])
    nodes: list[dict[str, Any]] = [{"id": one, "type": "schema"} for one in ("__start__", "__end__")]
    nodes.insert(1, {"id": name, "type": "runnable", "data": {"id": [name], "name": name}})
    edges = [{"source": "__start__", "target": name}, {"source": name, "target": "__end__"}]
    return json_answer({"nodes": nodes, "edges": edges})


@answered("/assistants/{id}/schemas", shape=refused)
async def langgraph_assistant_schemas(gateway: Gateway, request: Request) -> Response:
    """GET: return the JSON Schemas of an assistant's input, output and state."""
    name = await _named(gateway, request)
    drawn = await gateway.drawn(name)
    schemas: dict[str, Any] = {
        "input_schema": None,
        "output_schema": None,
        "state_schema": None,
        "config_schema": None,
    }
    schemas["context_schema"] = None
    return json_answer({"graph_id": name, **schemas, **(drawn["schemas"] if drawn is not None else {})})


async def _sought(gateway: Gateway, request: Request) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    owner = await request_head.owner(gateway, request)
    body = await read_json(request, gateway.bounds, as_it_is, owner)
    if not isinstance(body, dict):
        raise Invalid("body", "must be an object")
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise Invalid("metadata", "must be an object")
    told = [_told(name) for name in sorted(gateway.chains)]
    for field in ("graph_id", "name"):
        if wanted := body.get(field):
            told = [one for one in told if one[field] == wanted]
    return [one for one in told if metadata.items() <= one["metadata"].items()], body


async def _named(gateway: Gateway, request: Request) -> str:
    """Return the name of the chain that the path names. Raises StreamNotFound."""
    await request_head.owner(gateway, request)
    name = chain_of(gateway.chains, request.path_params["id"])
    if name not in gateway.chains:
        raise StreamNotFound("There is no such assistant.")
    return name


def _told(name: str) -> dict[str, Any]:
    return {
        "assistant_id": assistant_id(name),
        "graph_id": name,
        "name": name,
        "description": None,
        "config": {},
        "context": {},
        "metadata": {"created_by": "system"},
        "version": 1,
        "created_at": _SINCE,
        "updated_at": _SINCE,
    }


ROUTES = (
    Route("GET", "/info", langgraph_info),
    Route("GET", "/ok", langgraph_ok),
    Route("POST", "/assistants/search", langgraph_assistants),
    Route("POST", "/assistants/count", langgraph_assistants_count),
    Route("GET", "/assistants/{id}", langgraph_assistant),
    Route("GET", "/assistants/{id}/graph", langgraph_assistant_graph),
    Route("GET", "/assistants/{id}/schemas", langgraph_assistant_schemas),
)
