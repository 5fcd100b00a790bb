"""Read a tool's output, in each form in which a tool may return it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage


def output_of(output: Any, call_id: str) -> Any:
    """Return a tool's output. For a message, it is its content.

    For `Command`s, it is the content of the ToolMessage with this call's id. If no ToolMessage has the id,
    the last one is used. If there is no ToolMessage, the output is None: the other things that a Command
    writes to the state belong to the graph.
    """
    if isinstance(output, BaseMessage):
        return output.content
    parts = output if isinstance(output, list | tuple) else [output]
    if not any(_is_command(part) for part in parts):
        return output
    found = [message for part in parts for message in _answers(part)]
    own = [message for message in found if message.tool_call_id == call_id] or found
    return own[-1].content if own else None


def _is_command(value: Any) -> bool:
    types = sys.modules.get("langgraph.types")
    return types is not None and isinstance(value, types.Command)


def _answers(part: Any) -> Iterator[ToolMessage]:
    """Yield the ToolMessages of a part of an output, in each form of a Command's update."""
    if isinstance(part, ToolMessage):
        yield part
    elif _is_command(part):
        for value in _values(part.update):
            for item in value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, ToolMessage):
                    yield item


def _values(update: Any) -> list[Any]:
    """Return the values of a state update.

    It may be a mapping, pairs of names and values, a model, a dataclass, or messages.
    """
    if isinstance(update, Mapping):
        return list(update.values())
    if isinstance(update, list | tuple):
        return [item[1] if isinstance(item, tuple) and len(item) == 2 else item for item in update]
    if is_dataclass(update) and not isinstance(update, type):
        return [getattr(update, field.name) for field in fields(update)]
    if hasattr(type(update), "model_fields") and not isinstance(update, BaseMessage):
        return [getattr(update, name) for name in type(update).model_fields]
    return [update]
