"""Finds the parts of an AI SDK message that are not void. No I/O."""

from __future__ import annotations

from typing import Any

from gateway.formats.ai_sdk.projection import OURS


def standing(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a message's parts, without the parts that a later `data-reset` or `data-replay` makes void."""
    void: set[str] = set()
    kept = []
    for part in reversed(parts):
        data = part.get("data")
        if part["type"] == "data-replay":
            break
        if part["type"] == "data-reset":
            named = data.get("parts") if isinstance(data, dict) else None
            void |= {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()
        elif _name_of(part) not in void:
            kept.append(part)
    return kept[::-1]


def _name_of(part: Any) -> str:
    """Return the name by which a reset names this part: of a tool, the call's id. Empty if it has no name."""
    if isinstance(part.get("toolCallId"), str):
        return str(part["toolCallId"])
    for name in ("providerMetadata", OURS, "part"):
        part = part.get(name) if isinstance(part, dict) else None
    return part if isinstance(part, str) else ""
