"""Chains as tools: what each takes, and a call of one as what its chain is asked. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.formats.base.rpc import is_id
from gateway.protocol.errors import HoldfastError, Invalid
from gateway.streams.input_schemas import Schema
from gateway.streams.start import Bounds, Start, check_text, parse_start

QUESTION: Mapping[str, Any] = {
    "type": "object",
    "properties": {"user": {"type": "string", "minLength": 1, "description": "What is asked."}},
    "required": ["user"],
}


class NoTool(HoldfastError):
    """There is no such tool: a tool is a chain of this gateway."""

    status = 422
    code = "no_tool"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool. `progress`: the token of its notifications; None: none are wanted."""

    start: Start
    progress: str | int | None = field(default=None)


def tool(name: str, stages: Sequence[str], schema: Schema | None) -> dict[str, Any]:
    """A chain as a client lists it: with its input's schema where that is an object's, else a question's."""
    about = f"The chain {name}, in the stages {', '.join(stages)}."
    if schema is not None and isinstance(schema.get("description"), str):
        about = f"{about} {schema['description']}."
    return {
        "name": name,
        "description": about,
        "inputSchema": schema if takes_object(schema) else QUESTION,
        "annotations": {"title": name},
    }


def takes_object(schema: Schema | None) -> bool:
    """Whether a call's arguments are the chain's input themselves."""
    return schema is not None and schema.get("type") == "object"


def parse_tool_call(
    params: Mapping[str, Any], chains: Mapping[str, Any], schema_of: Any, bounds: Bounds
) -> ToolCall:
    """The params of `tools/call`. Raises Invalid, which names the field, or NoTool."""
    name, given = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or name not in chains:
        raise NoTool
    if not isinstance(given, dict):
        raise Invalid("arguments", "must be an object")
    asked = {"chain": name} | _input(given, schema_of(name))
    meta = params.get("_meta") or {}
    if not isinstance(meta, dict):
        raise Invalid("_meta", "must be an object")
    token = meta.get("progressToken")
    if token is not None and not is_id(token):
        raise Invalid("_meta.progressToken", "must be a string or a whole number")
    if isinstance(token, str):
        check_text("_meta.progressToken", token)
    return ToolCall(parse_start(asked, chains, bounds), token)


def _input(given: Mapping[str, Any], schema: Schema | None) -> dict[str, Any]:
    """A question, or the arguments as the chain's input, which a chain without a schema takes, too."""
    if set(given) == {"user"} and "user" not in ((schema or {}).get("properties") or {}):
        return {"user": given["user"]}
    if schema is None or takes_object(schema):
        return {"input": given}
    raise Invalid("arguments", "must be user, a text, and nothing else")
