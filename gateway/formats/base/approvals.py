"""Questions that ask for permission to call a tool, and the answers yes and no to them. Values; no I/O.

There are three kinds of such questions. LangChain's HumanInTheLoopMiddleware asks one question for all calls
of a model's message, or one question for each call. The gateway itself asks whether to call a tool again if
it is unknown whether the first call has done its work.

An approval's id contains everything that is needed to read an answer. So the same answer can be read again
after the question is closed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol.errors import Invalid
from gateway.streams.doubt import REASON, RETRY
from gateway.streams.resume import MOST_RESPONSES, Resume

APPROVE, REJECT = "approve", "reject"  # these words are defined by the middleware
# The last part of an approval's id: the middleware's question for one call, or the gateway's own question.
_ONE, _AGAIN = "call", "again"
# An approval's id: the stream, the question, and the kind of question. For a question about all calls of a
# message the last part is the call's number, from 1, and the number of calls.
_ID = re.compile(r"([A-Za-z0-9_-]{1,64})\.([^.]{1,200})\.(call|again|[0-9]{1,4}-[0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class Approval:
    """One call of a tool that needs permission. `allowed` has the decisions that the question accepts."""

    question: str
    place: str
    name: str
    input: Any = field(repr=False)
    allowed: Sequence[str] = (APPROVE, REJECT)

    def id(self, stream_id: str) -> str:
        """Return the approval's id, which is unique among the approvals of all streams."""
        return f"{stream_id}.{self.question}.{self.place}"


@dataclass(frozen=True, slots=True)
class Decision:
    """A client's decision (yes or no) on one approval. `at` is the field of the request that contains it."""

    at: str
    approval: str
    is_approved: bool
    reason: str = field(default="", repr=False)


def approvals_in(questions: Any) -> list[Approval]:
    """Return the approvals that these questions ask for; an empty list if a question asks for something else.

    All questions of a stream must be answered together. So if one question cannot be answered by yes or no,
    no question can be answered in this way.
    """
    found = [_asked(one) for one in questions or ()]
    return [] if [] in found else [approval for several in found for approval in several]


def _asked(question: Mapping[str, Any]) -> list[Approval]:
    """Return the approvals that one question asks for; an empty list if it is another kind of question."""
    name, value = question["id"], question.get("value")
    if not isinstance(value, Mapping) or not _ID.fullmatch(f"x.{name}.{_ONE}"):
        return []
    if value.get("type") == "tool_approval" and isinstance(value.get("name"), str):
        return [Approval(name, _ONE, value["name"], value.get("args"))]
    if value.get("reason") == REASON and isinstance(value.get("tool"), str):
        return [Approval(name, _AGAIN, value["tool"], value.get("input"))]
    calls = value.get("action_requests")
    if not isinstance(calls, list) or not 0 < len(calls) <= MOST_RESPONSES:
        return []
    if not all(isinstance(one, Mapping) and isinstance(one.get("name"), str) for one in calls):
        return []
    allowed = _allowed(value.get("review_configs"))
    return [
        Approval(
            *(name, f"{number}-{len(calls)}", one["name"], one.get("args")),
            allowed=allowed.get(one["name"], (APPROVE, REJECT)),
        )
        for number, one in enumerate(calls, 1)
    ]


def _allowed(configs: Any) -> dict[str, list[str]]:
    """Return the decisions that the middleware accepts, by the tool's name."""
    return {
        one["action_name"]: one["allowed_decisions"]
        for one in (configs if isinstance(configs, list) else ())
        if isinstance(one, Mapping)
        and isinstance(one.get("action_name"), str)
        and isinstance(one.get("allowed_decisions"), list)
    }


def place_of(approval_id: str) -> tuple[str, str, str] | None:
    """The stream, the question and the place in it that an approval's id names; None: it is none."""
    found = _ID.fullmatch(approval_id)
    return (found[1], found[2], found[3]) if found else None


def answered_by(decisions: Sequence[Decision]) -> tuple[str, Resume]:
    """Return the id of the stream that these decisions answer, and the answer.

    Raises Invalid, which names the field and the rule.
    """
    streams = set()
    whole: dict[str, dict[int, Decision]] = {}
    most: dict[str, str] = {}
    for one in decisions:
        found = _ID.fullmatch(one.approval)
        if found is None:
            raise Invalid(one.at, "must be the id of an approval that was asked for")
        stream, question, place = found.groups()
        number, _, count = place.partition("-")
        streams.add(stream)
        if len(streams) > 1 or most.setdefault(question, count or place) != (count or place):
            raise Invalid(one.at, "must be of the same stream as the others")
        at = int(number) if count else 1
        if whole.setdefault(question, {}).setdefault(at, one) is not one:
            raise Invalid(one.at, "is answered twice")
    responses: dict[str, Any] = {}
    for question, several in whole.items():
        if most[question] in (_ONE, _AGAIN):
            [responses[question]] = several.values()
            continue
        if sorted(several) != list(range(1, int(most[question]) + 1)):
            raise Invalid(next(iter(several.values())).at, "must come with all others of its question")
        responses[question] = [several[number] for number in sorted(several)]
    return streams.pop(), _resume(responses, most)


def _resume(decided: Mapping[str, Any], kinds: Mapping[str, str]) -> Resume:
    responses: dict[str, Any] = {}
    cancelled = set()
    for question, found in decided.items():
        if isinstance(found, list):
            responses[question] = {"decisions": [_word(one) for one in found]}
        elif kinds[question] == _ONE:
            responses[question] = _word(found)
        elif found.is_approved:
            responses[question] = RETRY
        else:  # the stream fails with `tool_unknown`, because the tool's answer is unknown
            responses[question] = None
            cancelled.add(question)
    return Resume(responses, frozenset(cancelled))


def _word(one: Decision) -> dict[str, Any]:
    """Return a decision in the middleware's form. This form has no field for the reason of an approval."""
    if one.is_approved:
        return {"type": APPROVE}
    return {"type": REJECT, "message": one.reason} if one.reason else {"type": REJECT}


def check_allowed(stream_id: str, questions: Any, decisions: Sequence[Decision]) -> None:
    """Check that the open questions accept these decisions. Raises Invalid.

    Without this check the middleware would fail the run.
    """
    allowed = {one.id(stream_id): one.allowed for one in approvals_in(questions)}
    for one in decisions:
        word = APPROVE if one.is_approved else REJECT
        if one.approval in allowed and word not in allowed[one.approval]:
            raise Invalid(one.at, f"may not be answered by {word}: this tool takes other decisions")
