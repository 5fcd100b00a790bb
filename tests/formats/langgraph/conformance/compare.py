"""Find where two records differ, one line for each difference, and which differences are allowed."""

from __future__ import annotations

import json
from typing import Any

from conformance.normal import normal

# Differences that the project's documentation allows: a name, and the words of the documentation.
ALLOWED: dict[str, str] = {
    "never unknown": "docs/formats.md: A thread without a run is empty, never unknown.",
    "mode": "docs/formats.md: Not to be had, and refused: … the modes …",
    "interrupt_before": "docs/formats.md: Not to be had, and refused: … `interrupt_before`/`_after`",
    "update": "docs/formats.md: Not served: … updates, copies … of threads, states written by a client.",
    "name": "docs/formats.md: `assistant_id` is a chain's name.",
    "left nothing": "docs/formats.md: a run that fails or is cancelled leaves nothing of a graph in its thread",
    "told": "docs/formats.md: A model's message has its `finish_reason` in `response_metadata`",
    "cancelled": "docs/formats.md: `failed`, `cancelled` become `error` `{error, message}`; `UserInterrupt` for the latter.",
}
_NOWHERE = object()


def differences(one: Any, other: Any, path: str = "") -> list[tuple[str, str, str]]:
    """Return the place of each difference, and both values."""
    one, other = normal(one), normal(other)
    return _differ(one, other, path)


def _differ(one: Any, other: Any, path: str) -> list[tuple[str, str, str]]:
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for key in [*one, *(k for k in other if k not in one)]:
            found += _differ(
                one.get(key, _NOWHERE), other.get(key, _NOWHERE), f"{path}.{key}" if path else str(key)
            )
        return found
    if isinstance(one, list) and isinstance(other, list):
        if len(one) == len(other):
            return [
                d
                for at, (a, b) in enumerate(zip(one, other, strict=True))
                for d in _differ(a, b, f"{path}[{at}]")
            ]
        return [(path, shown(one), shown(other))]
    if path.endswith(".streams") and one is False:
        return []  # the gateway may stream what LangGraph gives in one piece
    if isinstance(one, bool) != isinstance(other, bool) or one != other:
        return [(path, shown(one), shown(other))]
    return []


def shown(what: Any, most: int = 110) -> str:
    if what is _NOWHERE:
        return "nothing"
    text = json.dumps(what, ensure_ascii=False, default=str)
    return text if len(text) <= most else text[: most - 1] + "…"


def line(found: list[tuple[str, str, str]], most: int = 3) -> str:
    told = [f"{where}: {one} ≠ {other}" for where, one, other in found[:most]]
    return "; ".join(told) + (f"; and {len(found) - most} more" if len(found) > most else "")
