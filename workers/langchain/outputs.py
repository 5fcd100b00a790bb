"""What a tool has answered, in whatever form it answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage


def output_of(output: Any, call_id: str) -> Any:
    """A tool's output: of a message its content, of `Command`s that of the ToolMessage for this call.

    Where none has the call's id the last one counts; where there is none at all, the output is None: what
    else a Command writes to the state is the graph's own.
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
    """The ToolMessages of a part of an output, whichever way a Command's update is written."""
    if isinstance(part, ToolMessage):
        yield part
    elif _is_command(part):
        for value in _values(part.update):
            for item in value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, ToolMessage):
                    yield item


def _values(update: Any) -> list[Any]:
    """What a state update writes: a mapping, pairs of names and values, a model, a dataclass, messages."""
    if isinstance(update, Mapping):
        return list(update.values())
    if isinstance(update, list | tuple):
        return [item[1] if isinstance(item, tuple) and len(item) == 2 else item for item in update]
    if is_dataclass(update) and not isinstance(update, type):
        return [getattr(update, field.name) for field in fields(update)]
    if hasattr(type(update), "model_fields") and not isinstance(update, BaseMessage):
        return [getattr(update, name) for name in type(update).model_fields]
    return [update]
