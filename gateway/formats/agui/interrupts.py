"""What a run asks, as AG-UI's interrupts, and the answers to them. No I/O.

A question that asks for leave to call tools is one interrupt for each call, which is answered by
`{"approved": true}`; its id holds all that an answer needs. Any other question is an interrupt of the
question's own id, whose payload is what the graph is given. A graph that stands at a breakpoint asks nothing:
it is told as an interrupt all the same, since the protocol knows no other end of such a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.formats.agui.request import Reply
from gateway.formats.base.approvals import APPROVE, REJECT, Approval, approvals_in, place_of
from gateway.protocol.errors import Invalid
from gateway.streams.doubt import RETRY
from gateway.streams.resume import Resume

BREAKPOINT = "breakpoint"
CONFIRM, INPUT = "confirmation", "input_required"
EDIT = "edit"
_DECISIONS = "decisions"
_WORDS = ("message", "question", "prompt", "description")  # members that hold what a person is asked


def interrupts_of(stream_id: str, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The interrupts of a stream that has ended to ask; at least one."""
    questions = data.get("interrupts") or ()
    if approvals := approvals_in(questions):
        return [_approval(stream_id, one) for one in approvals]
    if not questions:
        told = {"next": data["next"]} if data.get("next") else {}
        return [{"id": BREAKPOINT, "reason": f"holdfast:{BREAKPOINT}", "metadata": told}]
    return [_question(one) for one in questions]


def _approval(stream_id: str, asked: Approval) -> dict[str, Any]:
    properties: dict[str, Any] = {"approved": {"type": "boolean"}, "reason": {"type": "string"}}
    if EDIT in asked.allowed:
        properties["editedArgs"] = {"type": "object"}
    return {
        "id": asked.id(stream_id),
        "reason": CONFIRM,
        "message": f"Call the tool {asked.name}?",
        "responseSchema": {"type": "object", "properties": properties, "required": ["approved"]},
        "metadata": {"tool": asked.name, "args": asked.input},
    }


def _question(asked: Mapping[str, Any]) -> dict[str, Any]:
    value, schema = asked.get("value"), asked.get("response_schema")
    told: dict[str, Any] = {"id": asked["id"], "reason": INPUT}
    if isinstance(value, Mapping):
        words = [value[name] for name in _WORDS if isinstance(value.get(name), str)]
        if isinstance(value.get("reason"), str):
            told["reason"] = value["reason"]
    else:
        words = [value] if isinstance(value, str) else []
    told |= {"message": words[0]} if words else {}
    told |= {"responseSchema": schema} if isinstance(schema, Mapping) else {}
    return told | {"metadata": {"value": value}}


def answer_of(
    stream_id: str, entries: Sequence[Reply], questions: Iterable[Mapping[str, Any]] | None
) -> Resume:
    """The answer that these entries are to a stream's questions, which may be closed (None).

    Raises Invalid, which names the field.
    """
    if [one.interrupt for one in entries] == [BREAKPOINT]:
        return Resume({})
    allowed = {one.id(stream_id): one.allowed for one in approvals_in(questions)}
    responses: dict[str, Any] = {}
    cancelled = set()
    parts: dict[str, dict[int, Any]] = {}
    counts: dict[str, tuple[int, Reply]] = {}
    for one in entries:
        found = place_of(one.interrupt)
        if found is None or found[0] != stream_id:  # the id of a question itself
            responses[one.interrupt] = None if one.is_cancelled else one.payload
            cancelled |= {one.interrupt} if one.is_cancelled else set()
            continue
        _, question, place = found
        number, _, count = place.partition("-")
        decision = _decision(one, allowed.get(one.interrupt))
        if count:
            parts.setdefault(question, {})[int(number)] = decision
            counts[question] = int(count), one
        elif place != "again":
            responses[question] = decision
        elif decision["type"] == APPROVE:
            responses[question] = RETRY
        else:  # nobody knows what the tool has answered: the stream fails
            responses[question] = None
            cancelled.add(question)
    for question, several in parts.items():
        most, last = counts[question]
        if sorted(several) != list(range(1, most + 1)):
            raise Invalid(last.at, "must come with all others of its question")
        responses[question] = {_DECISIONS: [several[number] for number in sorted(several)]}
    return Resume(responses, frozenset(cancelled))


def _decision(one: Reply, allowed: Sequence[str] | None) -> dict[str, Any]:
    """The word of LangChain's middleware; its own words are taken too. Raises Invalid.

    `allowed`: the words that its question takes, where that is open.
    """
    payload = {"approved": False} if one.is_cancelled else one.payload
    at = f"{one.at}.payload"
    if (
        isinstance(payload, dict)
        and isinstance(payload.get(_DECISIONS), list)
        and len(payload[_DECISIONS]) == 1
    ):
        [payload] = payload[_DECISIONS]
    if isinstance(payload, bool):
        payload = {"approved": payload}
    if not isinstance(payload, dict):
        raise Invalid(at, 'must be an object with "approved"')
    word = payload if isinstance(payload.get("type"), str) else _word(at, one, payload)
    if allowed is not None and word["type"] not in allowed:
        raise Invalid(at, f"may not be answered by {word['type']}: this tool takes other decisions")
    return word


def _word(at: str, one: Reply, payload: Mapping[str, Any]) -> dict[str, Any]:
    approved, edited, reason = (payload.get(name) for name in ("approved", "editedArgs", "reason"))
    if not isinstance(approved, bool):
        raise Invalid(f"{at}.approved", "must be true or false")
    if not approved:
        return {"type": REJECT, "message": reason} if isinstance(reason, str) and reason else {"type": REJECT}
    if edited is None:
        return {"type": APPROVE}
    if not isinstance(edited, dict):
        raise Invalid(f"{at}.editedArgs", "must be an object")
    raise Invalid(f"{at}.editedArgs", "is not taken here: answer by the middleware's own words")
