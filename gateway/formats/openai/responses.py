"""OpenAI's Responses: start one, follow it from any number on, see it whole, cancel it.

Every response runs in the background here and is kept as long as its stream: `stream` and `background` only
say whether the POST answers at once. A conversation goes on by `previous_response_id`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

import gateway.formats.openai.fields as fields
from gateway.formats.base.approvals import Decision, answered_by, check_allowed
from gateway.formats.base.projection import Place
from gateway.formats.base.serving import Route, begin, follow, replayed, stands
from gateway.formats.openai import repeats
from gateway.formats.openai.approvals import REFERENCE, REQUEST, RESPONSE, decisions_in
from gateway.formats.openai.common import NoPrevious, begun, refusal, unknown, where
from gateway.formats.openai.output import Responses
from gateway.formats.openai.references import reference_in, refers, resolved
from gateway.formats.openai.waiting import ToldLate, at_the_end
from gateway.protocol import Status, sse
from gateway.protocol.errors import CursorLost, Invalid, StreamGone, StreamNotFound, TooLarge
from gateway.runtime.off_loop import aside
from gateway.store.conversations import ALSO
from gateway.store.record import Record
from gateway.streams.messages import MOST_ID, MOST_NAME, call, check_arguments, check_word, with_answers
from gateway.streams.params import RESPONSE_FORMAT
from gateway.streams.room import Document
from gateway.streams.service import Gateway
from gateway.streams.start import Bounds, Start, parse_start, read_json
from gateway.web import request_head
from gateway.web.answers import answered, json_answer

KIND = "openai response"
_OWN = frozenset(
    ("input", "instructions", "previous_response_id", "background", "store", "stream", "stream_options")
)
_PREFIX = "resp_"
_KINDS = ("message", "function_call", "function_call_output", REFERENCE, RESPONSE)
# Of a response's output that is sent back as input, and of answers to it.
_SKIPPED = frozenset(("reasoning", "mcp_call", REQUEST, RESPONSE))


@dataclass(frozen=True, slots=True)
class Draft:
    """A request's body, of which the conversation is not known yet: `said` is what it adds to that."""

    value: Mapping[str, Any]
    chain: str
    params: Mapping[str, Any]
    said: list[dict[str, Any]]
    places: list[str]  # of `said`: the fields that they come from
    instructions: list[dict[str, Any]]
    decisions: list[Decision]  # about what another response asks leave for; then it adds nothing


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    `kept` is what a later request needs of it. `shown` is what this request's own answer shows beside: what
    must not be kept longer than the run.
    """

    stream: bool
    kept: Mapping[str, Any]
    shown: Mapping[str, Any]


@answered("/v1/responses", shape=refusal)
async def openai_responses_create(gateway: Gateway, request: Request) -> Response:
    """POST /v1/responses."""
    owner = await request_head.owner(gateway, request)
    draft, digest = await read_json(
        request,
        gateway.bounds,
        lambda value: (parse(value, gateway), repeats.digest_of(request, value)),
        owner,
    )
    if draft.decisions:
        gateway.parts.hub.check_room(owner=owner)
        record, asked = await _resumed(gateway, request, draft, owner)
    else:
        start, asked = await with_what_was_said(draft, gateway, owner)
        gateway.parts.hub.check_room(owner=owner)
        again = await repeats.joined(gateway, request, owner, digest)
        if digest:
            asked = replace(asked, kept={**asked.kept, ALSO: [(repeats.KIND, digest)]})
        with _as_sent():
            record = again or await begin(gateway, request, start, owner, followed=asked.stream)
    with begun(record):
        if not draft.decisions and again is None:
            await repeats.note(gateway, owner, digest, record)
        await gateway.parts.conversations.keep(owner, record.id, KIND, asked.kept)
        made = await _made(gateway, record, asked.shown)
        if asked.stream:
            return follow(gateway, record, made(), headers=where(record.id))
        if not asked.kept["background"]:
            return await at_the_end(gateway, request, record, made, lambda told: ToldLate(told.document()))
        told = await replayed(gateway, record, made)
    return json_answer(Document.of(told.document(), told.share), 200, dict(where(record.id)))


@answered("/v1/responses/{id}", shape=refusal)
async def openai_responses_retrieve(gateway: Gateway, request: Request) -> Response:
    """GET /v1/responses/{id}: the response, or its events after one of them."""
    stream, after = _flag(request, "stream"), _after(request)
    record = await _found(gateway, request)
    if not stream:
        return await _document(gateway, record)
    place = None if after is None else await _place(gateway, record, after)
    return follow(gateway, record, (await _made(gateway, record))(), place, where(record.id))


@answered("/v1/responses/{id}/cancel", shape=refusal)
async def openai_responses_cancel(gateway: Gateway, request: Request) -> Response:
    """POST /v1/responses/{id}/cancel."""
    record = await _found(gateway, request)
    await gateway.end(record.id, record.owner)
    return await _document(gateway, record)


def parse(value: Any, gateway: Gateway) -> Draft:
    """The rules of the body alone. Raises Invalid, which names the field, or ModelNotFound."""
    chain, params = fields.common(value, _OWN, gateway.chains, gateway.inputs)
    options = value.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise Invalid("stream_options", "must be an object")
    decisions = decisions_in(value.get("input"), value.get("previous_response_id") is not None)
    said, places = ([], []) if decisions else _messages(value.get("input"), gateway.bounds)
    return Draft(value, chain, params, said, places, _instructions(value), decisions)


async def with_what_was_said(draft: Draft, gateway: Gateway, owner: str) -> tuple[Start, Asked]:
    """What is started, and the request with what was said before. Raises Invalid, TooLarge, or as `find`."""
    value = draft.value
    previous = value.get("previous_response_id")
    before = [] if previous is None else await _conversation(gateway, previous, owner)
    is_more = previous is not None or refers(draft.said)  # than the body holds
    said, places = await resolved(gateway, draft.said, draft.places, owner)
    before = with_answers(before, said)
    conversation = [*before, *said]
    start: dict[str, Any] = {
        "chain": draft.chain,
        "params": draft.params,
        "messages": [*draft.instructions, *conversation],
    }
    if told := fields.metadata(value):
        start["metadata"] = told
    if is_more and len(sse.dumps(start["messages"])) > gateway.bounds.bytes:
        raise TooLarge(f"the conversation's bound is {gateway.bounds.bytes} bytes")
    stored = value.get("store") is None or fields.flag(value, "store")
    shown = {"instructions": value.get("instructions") or None, **_text_asked(draft.params)}
    kept = {
        "background": fields.flag(value, "background"),
        "previous_response_id": previous,
        "store": stored,
        "messages": conversation if stored else None,
        **(shown if stored else {}),
    }
    with _as_sent(len(draft.instructions) + len(before), places):
        size = len(sse.dumps(start))
        start_it = await aside(size, lambda: parse_start(start, gateway.chains, gateway.bounds), owner)
        start_it = replace(start_it, unstored=not stored)
        return start_it, Asked(fields.flag(value, "stream"), kept, shown)


async def _resumed(gateway: Gateway, request: Request, draft: Draft, owner: str) -> tuple[Record, Asked]:
    """The stream that goes on with a draft's decisions; the same for the same ones.

    Its instructions, params and metadata are those of the stream that has asked. Raises Invalid, or as `find`
    and `Gateway.resume`.
    """
    stream_id, given = answered_by(draft.decisions)
    try:
        before = await gateway.find(stream_id, owner)
    except StreamNotFound:
        raise unknown(draft.decisions[0].at) from None
    previous = draft.value.get("previous_response_id")
    if previous not in (None, f"{_PREFIX}{stream_id}"):
        raise Invalid("previous_response_id", "must be the id of the response that asks for the approvals")
    if before.chain != draft.chain:
        raise Invalid("model", "must be that of the response that asks for the approvals")
    check_allowed(stream_id, before.questions, draft.decisions)
    kept = await gateway.parts.conversations.kept(owner, stream_id, KIND) or {}
    is_kept = kept.get("messages") is not None and draft.value.get("store") is not False
    said = await _conversation(gateway, f"{_PREFIX}{stream_id}", owner) if is_kept else None
    if said and not said[-1]["content"] and "tool_calls" not in said[-1]:
        said.pop()  # it has asked, and said nothing
    asked = Asked(
        fields.flag(draft.value, "stream"),
        {
            **{name: value for name, value in kept.items() if name != ALSO},
            "background": fields.flag(draft.value, "background"),
            "previous_response_id": f"{_PREFIX}{stream_id}",
            "store": is_kept,
            "messages": said,
        },
        {},
    )
    record = await gateway.resume(
        stream_id,
        replace(given, unstored=draft.value.get("store") is False),
        owner=owner,
        traceparent=request_head.traceparent(request),
        followed=asked.stream,
        claims=request_head.claims(request),
    )
    request_head.note(record)
    return record, asked


def _messages(given: Any, bounds: Bounds) -> tuple[list[dict[str, Any]], list[str]]:
    """The input: a text, or items; and the field that each message comes from.

    Of a response's own items that are sent back, those that are neither messages nor calls of the client's
    tools are left out.
    """
    if isinstance(given, str) and given.strip():
        return [{"role": "user", "content": fields.content("input", given)}], ["input"]
    if not isinstance(given, list) or not given:
        raise Invalid("input", "must be a string that is not empty, or a list of items")
    messages: list[dict[str, Any]] = []
    places: list[str] = []
    for number, item in enumerate(given):
        at = f"input[{number}]"
        if not isinstance(item, dict):
            raise Invalid(at, "must be an object")
        kind = item.get("type", "message")
        if kind == "message":
            messages.append(fields.message(at, item))
        elif kind == "function_call_output":
            check_word(f"{at}.call_id", item.get("call_id"), MOST_ID)
            said = fields.content(f"{at}.output", item.get("output"))
            messages.append({"role": "tool", "content": said, "tool_call_id": item["call_id"]})
        elif kind == "function_call":
            if asked := _asked(at, item, messages, bounds):
                messages.append(asked)
        elif kind == REFERENCE:
            if referred := reference_in(at, item):
                messages.append(referred)
        elif not isinstance(kind, str) or kind not in _SKIPPED:
            raise Invalid(f"{at}.type", f"must be one of {', '.join(_KINDS)}")
        places += [at] * (len(messages) - len(places))
    return messages, places


def _asked(
    at: str, item: Mapping[str, Any], messages: list[dict[str, Any]], bounds: Bounds
) -> dict[str, Any] | None:
    """A call, as a message of its own; None where the assistant's message just before it has taken it."""
    check_word(f"{at}.call_id", item.get("call_id"), MOST_ID)
    check_word(f"{at}.name", item.get("name"), MOST_NAME)
    check_arguments(f"{at}.arguments", item.get("arguments"), bounds)
    made = call(item["call_id"], item["name"], item["arguments"])
    if messages and messages[-1]["role"] == "assistant":
        messages[-1].setdefault("tool_calls", []).append(made)
        return None
    return {"role": "assistant", "content": "", "tool_calls": [made]}


def _text_asked(params: Mapping[str, Any]) -> dict[str, Any]:
    """The form of the text, as a response shows it, where it was asked for in one."""
    form = params.get(RESPONSE_FORMAT)
    return {"text": {"format": {"type": "json_schema", **form}}} if form else {}


def _instructions(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = value.get("instructions")
    if given is None or given == "":
        return []
    if not isinstance(given, str):
        raise Invalid("instructions", "must be a string")
    return [{"role": "system", "content": fields.content("instructions", given)}]


async def _conversation(gateway: Gateway, previous: Any, owner: str) -> list[dict[str, Any]]:
    """What was said before, without instructions, and the answer, with calls that were left to the client."""
    field = "previous_response_id"
    if not isinstance(previous, str):
        raise Invalid(field, "must be a string")
    try:
        record = await gateway.find(previous.removeprefix(_PREFIX), owner)
    except (StreamNotFound, StreamGone):
        raise NoPrevious(previous) from None
    kept = await gateway.parts.conversations.kept(owner, record.id, KIND)
    if kept and not kept["store"]:
        raise NoPrevious(previous)
    if record.status is not Status.DONE or not kept or kept["messages"] is None:
        raise Invalid(field, "must be the id of a response that is completed, and was stored")
    told = await replayed(gateway, record, Responses)
    answer: dict[str, Any] = {"role": "assistant", "content": told.answer()}
    if calls := [call(one.call_id, one.name, one.arguments) for one in told.for_client]:
        answer["tool_calls"] = calls
    return [*kept["messages"], answer]


@contextmanager
def _as_sent(before: int = 0, places: Sequence[str] = ()) -> Iterator[None]:
    """A rule that the messages break which the input has become is told in the client's words.

    `places`: the fields of the input that the messages come from; so many others are `before` them.
    """
    try:
        yield
    except Invalid as error:
        field: str = error.extensions["field"]
        if not field.startswith("messages"):
            raise
        index, _, name = field.removeprefix("messages[").partition("]")
        own = int(index) - before if name == ".tool_call_id" else -1
        is_named = 0 <= own < len(places)
        raise Invalid(f"{places[own]}.call_id" if is_named else "input", error.extensions["rule"]) from None


async def _made(
    gateway: Gateway, record: Record, shown: Mapping[str, Any] | None = None
) -> partial[Responses]:
    """Makes the projection of a stream, in whatever format it was started; `shown` as in `Asked`."""
    kept = await gateway.parts.conversations.kept(record.owner, record.id, KIND) or {}
    asked = {name: value for name, value in kept.items() if name not in ("messages", ALSO)}
    return partial(
        Responses, {"background": False, "metadata": record.metadata or {}, **asked, **(shown or {})}
    )


async def _document(gateway: Gateway, record: Record) -> Response:
    told = await replayed(gateway, record, await _made(gateway, record))
    return json_answer(Document.of(told.document(), told.share), 200, dict(where(record.id)))


async def _found(gateway: Gateway, request: Request) -> Record:
    """The caller's response of the path."""
    owner = await request_head.owner(gateway, request)
    record = await gateway.find(request.path_params["id"].removeprefix(_PREFIX), owner)
    request_head.note(record)
    return record


def _flag(request: Request, name: str) -> bool:
    given = request.query_params.getlist(name)
    if given not in ([], ["true"], ["false"]):
        raise Invalid(name, "must be true or false")
    return given == ["true"]


def _after(request: Request) -> int | None:
    """The `sequence_number` that the client has seen last. Raises Invalid."""
    given = request.query_params.getlist("starting_after")
    if not given:
        return None
    if len(given) > 1 or not (given[0].isascii() and given[0].isdigit()) or len(given[0]) > 16:
        raise Invalid("starting_after", "must be a whole number, once")
    return int(given[0])


async def _place(gateway: Gateway, record: Record, after: int) -> Place | None:
    """Where the event of this number is; 0 is before the first, unless the first has it.

    Raises CursorLost for a number that no event has.
    """
    try:
        place = Place.of_number(after)
    except ValueError:
        raise CursorLost(field="starting_after") from None
    if await stands(gateway, record, place):
        return place
    if after == 0:
        return None
    raise CursorLost(field="starting_after")


ROUTES = (
    Route("POST", "/v1/responses", openai_responses_create),
    Route("GET", "/v1/responses/{id}", openai_responses_retrieve),
    Route("POST", "/v1/responses/{id}/cancel", openai_responses_cancel),
)
