"""Describe a chain that is one graph: its nodes, edges and schemas, in the format of LangGraph's server.

The chain is created for this, as for a run. The description is made in a thread outside the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from gateway.streams.graph_state import DrawnOf
from workers.chains.registry import Registry

_log = logging.getLogger("holdfast.chains")


def drawing(registry: Registry) -> DrawnOf:
    """Return a function that describes the chains of this registry.

    The function returns None for a chain that is not a graph, or that cannot be created here.
    """
    known: dict[str, tuple[Any, Mapping[str, Any]]] = {}

    async def drawn(name: str) -> Mapping[str, Any] | None:
        # This imports LangChain, which a process need not import before its first request.
        from workers.langchain.shape import is_graph

        try:
            [*parts] = (await registry.load(name)).values()
        except Exception as error:  # the factory is the author's code, so it may raise anything
            _log.warning("the chain %s cannot be drawn: %s", name, type(error).__name__)
            return None
        if len(parts) != 1 or not is_graph(parts[0]):
            return None
        if name not in known or known[name][0] is not parts[0]:
            known[name] = parts[0], await asyncio.to_thread(_drawn, parts[0])
        return known[name][1]

    return drawn


def _drawn(graph: Any) -> dict[str, Any]:
    told = graph.get_graph().to_json()
    for node in told["nodes"]:
        if isinstance(node.get("data"), dict):
            node["data"].pop("id", None)
    schemas = {
        "input_schema": _tried(graph.get_input_jsonschema),
        "output_schema": _tried(graph.get_output_jsonschema),
        "state_schema": _tried(lambda: _state(graph)),
        "config_schema": None,
        "context_schema": _tried(graph.get_context_jsonschema),
    }
    return {"graph": told, "schemas": schemas}


def _tried(make: Callable[[], Any]) -> Any:
    """Return a schema, or None for a type that has no schema."""
    try:
        return make()
    except Exception as error:  # pydantic may raise anything for an author's type
        _log.debug("no schema: %s", type(error).__name__)
        return None


def _state(graph: Any) -> Any:
    """Return the schema of all channels that the graph shows."""
    from pydantic import create_model

    fields: dict[str, Any] = {}
    for name in graph.stream_channels_list:
        kind = graph.channels[name].UpdateType
        has_one = _tried(lambda kind=kind: create_model("One", value=(kind, None)).model_json_schema())  # type: ignore[misc]
        fields[name] = (kind if has_one is not None else Any, None)
    return create_model(graph.get_name("State"), **fields).model_json_schema()
