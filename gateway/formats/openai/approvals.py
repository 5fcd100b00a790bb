"""A response's answer to what another one asks leave for: `mcp_approval_response` items. No I/O.

The answer is the whole input. Whoever sends a conversation as items has the earlier items before it, which
end in what was asked: the run has them already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.formats.base.approvals import Decision
from gateway.protocol.errors import Invalid
from gateway.streams.strict_json import check_text

PREFIX = "mcpr_"
REQUEST, RESPONSE = "mcp_approval_request", "mcp_approval_response"
REFERENCE = "item_reference"  # instead of the request itself


def decisions_in(given: Any, has_previous: bool) -> list[Decision]:
    """Those at the end of the input; none where it ends in something else. Raises Invalid.

    `has_previous`: the request names the response before, so its input may hold nothing that was said before.
    """
    items = given if isinstance(given, list) else []
    kinds = [item.get("type") if isinstance(item, dict) else None for item in items]
    first = len(kinds)
    while first and kinds[first - 1] == RESPONSE:
        first -= 1
    if has_previous and RESPONSE in kinds[:first]:
        raise Invalid(f"input[{kinds.index(RESPONSE)}]", "must stand at the end of the input")
    if first == len(kinds):
        return []
    if first and (has_previous or kinds[first - 1] not in (REQUEST, REFERENCE)):
        raise Invalid(f"input[{first - 1}]", "is not taken with answers to approvals: send it afterwards")
    return [_decision(f"input[{number}]", items[number]) for number in range(first, len(items))]


def _decision(at: str, item: Mapping[str, Any]) -> Decision:
    name, is_approved, reason = (item.get(one) for one in ("approval_request_id", "approve", "reason"))
    if not isinstance(name, str) or not name.startswith(PREFIX):
        raise Invalid(f"{at}.approval_request_id", f"must be the id of an {REQUEST}")
    if not isinstance(is_approved, bool):
        raise Invalid(f"{at}.approve", "must be true or false")
    if not isinstance(reason, str | None):
        raise Invalid(f"{at}.reason", "must be a string")
    check_text(f"{at}.reason", reason or "")
    return Decision(f"{at}.approval_request_id", name.removeprefix(PREFIX), is_approved, reason or "")
