"""The body of POST /stream/{id}/resume: a client's answers to the questions of a graph. No I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol import sse
from gateway.protocol.errors import Invalid
from gateway.streams.strict_json import DEFAULT, Bounds, shown
from gateway.webhooks import asked as hooks
from gateway.webhooks.asked import Webhook

MOST_RESPONSES = 1000
_FIELDS, _OF_RESPONSE = ("responses", "update", "goto", hooks.FIELD), ("interrupt_id", "status", "response")
_STATUSES = ("resolved", "cancelled")


@dataclass(frozen=True, slots=True)
class Resume:
    """A client's answers: a value for each question, and other changes.

    `responses` maps the questions' ids to the answers, in the order of the request. A cancelled answer is
    None.
    """

    responses: Mapping[str, Any] = field(repr=False)
    cancelled: frozenset[str] = frozenset()
    update: Mapping[str, Any] | None = field(default=None, repr=False)
    goto: Sequence[Any] = ()
    webhook: Webhook | None = None  # replaces the webhook of the stream that asks; None: the same webhook
    unstored: bool = False  # nothing of the stream that continues outlives its run

    @property
    def pending(self) -> bytes:
        """The ids of the questions, as a record stores them."""
        return sse.dumps(sorted(self.responses))

    @property
    def digest(self) -> str:
        """SHA-256 in hex. It is the same for answers that are equal as JSON, in any order."""
        told = [[name, name in self.cancelled, value] for name, value in sorted(self.responses.items())]
        whole = _plain([told, self.update, list(self.goto)])
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def answer(self) -> dict[str, Any]:
        """Return the answer as the record of the new stream stores it."""
        return {"responses": dict(self.responses), "update": self.update, "goto": list(self.goto)}


def parse_resume(value: Any, bounds: Bounds = DEFAULT) -> Resume:
    """Parse the body of POST /stream/{id}/resume. Raises Invalid, which names the field and the rule."""
    if not isinstance(value, dict):
        raise Invalid("body", "must be an object")
    for name in value:
        if name not in _FIELDS:
            raise Invalid(shown(name), "is not a field of this request")
    given = value.get("responses")
    if not isinstance(given, list) or len(given) > MOST_RESPONSES:
        raise Invalid("responses", f"must be a list of at most {MOST_RESPONSES} answers")
    responses: dict[str, Any] = {}
    cancelled = set()
    for number, one in enumerate(given):
        name, response, is_cancelled = _response(f"responses.{number}", one)
        if name in responses:
            raise Invalid(f"responses.{number}.interrupt_id", "is answered twice")
        responses[name] = response
        if is_cancelled:
            cancelled.add(name)
    update = value.get("update")
    if update is not None and not isinstance(update, dict):
        raise Invalid("update", "must be an object")
    goto = goto_of("goto", value.get("goto"))
    return Resume(responses, frozenset(cancelled), update, goto, hooks.instead(value, bounds.webhooks))


def _response(at: str, one: Any) -> tuple[str, Any, bool]:
    """Return the id of the question, the answer, and whether it was cancelled."""
    if not isinstance(one, dict):
        raise Invalid(at, "must be an object")
    for name in one:
        if name not in _OF_RESPONSE:
            raise Invalid(f"{at}.{shown(name)}", "is not a field of an answer")
    name, status = one.get("interrupt_id"), one.get("status", "resolved")
    if not isinstance(name, str) or not name:
        raise Invalid(f"{at}.interrupt_id", "must be the id of a question")
    if status not in _STATUSES:
        raise Invalid(f"{at}.status", f"must be one of {', '.join(_STATUSES)}")
    if status == "cancelled":
        return name, None, True
    if "response" not in one:
        raise Invalid(f"{at}.response", "must be given")
    return name, one["response"], False


def goto_of(at: str, given: Any) -> list[Any]:
    """Return the nodes to go to.

    `given` is a name, or `{"node", "input"}`, or a list of these. Raises Invalid.
    """
    if given is None:
        return []
    found = given if isinstance(given, list) else [given]
    for one in found:
        node = one.get("node") if isinstance(one, dict) and set(one) <= {"node", "input"} else one
        if not isinstance(node, str) or not node:
            raise Invalid(at, 'must be the name of a node, or {"node", "input"}, or a list of these')
    if len(found) > MOST_RESPONSES:
        raise Invalid(at, f"must be at most {MOST_RESPONSES}")
    return found


def _plain(value: Any) -> Any:
    """Return the same JSON in which a whole number is always written as an integer."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
