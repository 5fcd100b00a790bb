"""Questions about a tool call whose outcome is unknown: the tool may or may not have done its work.

No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Also the error code of a stream that is not allowed to ask.
REASON = "tool_unknown"
RETRY = "retry"


def doubts_in(questions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the values of the stream's questions that are about such calls."""
    values = (one.get("value") for one in questions)
    return [
        one for one in values if isinstance(one, Mapping) and one.get("reason") == REASON and "tool" in one
    ]
