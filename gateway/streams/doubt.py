"""What is asked about a tool call of which nobody knows whether it has done its work. Values; no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

REASON = "tool_unknown"  # also the code of a stream that may not ask
RETRY = "retry"


def doubts_in(questions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The values of those of a stream's questions that are about such calls."""
    values = (one.get("value") for one in questions)
    return [
        one for one in values if isinstance(one, Mapping) and one.get("reason") == REASON and "tool" in one
    ]
