"""OpenAI's chat completions, streamed or whole; the text is the stream's answer (`answer`).

This format has no cursor: a connection that is cut cannot be resumed by its clients, only by our own GET,
at the `location` of the answer. Nor can it say that what it has said is void: a `reset` of text that this
reader has ends its stream with an error, like a failure. The same POST with its Idempotency-Key begins the
same stream anew, without what was void by then.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

import gateway.formats.openai.fields as fields
from gateway import protocol
from gateway.formats.base.answer_text import Piece
from gateway.formats.base.calls import CALLS, Unanswered
from gateway.formats.base.projection import Frame, Projection, alive, projected
from gateway.formats.base.serving import Route, begin, replayed
from gateway.formats.base.spoken import Spoken
from gateway.formats.openai import repeats
from gateway.formats.openai.common import begun, error_of, pages_of, refusal, seconds, tokens, where
from gateway.formats.openai.waiting import ToldLate, at_the_end
from gateway.protocol import Cursor, Event, Status
from gateway.protocol.errors import Invalid
from gateway.protocol.fold import StageText
from gateway.relay.reader import Ending
from gateway.store.record import Record
from gateway.streams.messages import call
from gateway.streams.service import Gateway
from gateway.streams.start import Start, parse_start, read_json
from gateway.web import request_head
from gateway.web.answers import answered
from gateway.web.event_stream import CutStream

_OWN = frozenset(("messages", "stream", "stream_options"))
_FINISHES = frozenset(("stop", "length", "content_filter"))  # of what a model may say; calls are the chain's
CANCELLED = "The run was cancelled."
VOID = "What was said is void: the run was taken over and has said something else. Ask again, or follow it."


@dataclass
class Chat(Spoken):
    """`usage`: whether it is asked for."""

    usage: bool = False
    over: bool = field(default=False, init=False)  # it has ended here, whatever the stream does
    _head: dict[str, Any] = field(default_factory=dict, init=False)
    _said_at: int = field(default=-1, init=False)  # the offset of the event with which text was sent last
    _refuses: bool = field(default=False, init=False)

    def feed(self, event_id: str, event: Event) -> list[Frame]:
        """The frames of the next event; none after the end."""
        return [] if self.over else super().feed(event_id, event)

    def start(self, data: Any) -> Iterable[Frame]:
        """The role comes first."""
        self._head = head(data["id"], data["chain"], data["created_at"])
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})

    def said(self, told: Piece) -> Iterable[Frame]:
        """A chunk."""
        self._said_at = Cursor.parse(self.cursor).offset
        self._refuses = self._refuses or told.is_refusal
        if told.text:
            yield self._chunk({"refusal" if told.is_refusal else "content": told.text})
        if told.cited:
            yield self._chunk({"annotations": annotations_of(told.cited)})

    def reset(self, data: Any) -> Iterable[Frame]:
        """The end, if this reader has any of what is void."""
        yield from super().reset(data)
        if self._said_at > Cursor.parse(data["discard_after"]).offset:
            self.over = True
            yield Frame(error_of(VOID, "reset", 500))

    def done(self, data: Any) -> Iterable[Frame]:
        """Why it ends, its tokens if they are asked for, and the mark."""
        yield from super().done(data)
        if calls := calls_of(self.for_client):
            yield self._chunk({"tool_calls": [{"index": n, **one} for n, one in enumerate(calls)]})
        yield self._chunk({}, finish_of(data["finish_reason"], self.for_client, refuses=self._refuses))
        if self.usage:
            yield Frame({**self._head, "choices": [], "usage": usage_of(data["usage"])})
        yield Frame(b"[DONE]")

    def failed(self, data: Any) -> Iterable[Frame]:
        """An error."""
        yield Frame(error_of(data["message"], data["code"], 500))

    def cancelled(self) -> Iterable[Frame]:
        """Likewise."""
        yield Frame(error_of(CANCELLED, "cancelled", 409))

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> Frame:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self.usage else {}
        return Frame({**self._head, "choices": [choice], **usage})


@dataclass
class Whole(Spoken):
    """The answer, put together, and why the stream has ended. It has no frames."""

    reason: str = field(default="", init=False)
    _parts: list[tuple[int, Piece]] = field(default_factory=list, init=False)  # each with its event's offset

    def said(self, told: Piece) -> Iterable[Frame]:
        """One more piece."""
        self._parts.append((Cursor.parse(self.cursor).offset, told))
        return ()

    def reset(self, data: Any) -> Iterable[Frame]:
        """What is void."""
        since = Cursor.parse(data["discard_after"]).offset
        self._parts = [part for part in self._parts if part[0] <= since]
        return super().reset(data)

    def done(self, data: Any) -> Iterable[Frame]:
        """In the model's words."""
        self.reason = data["finish_reason"]
        return super().done(data)

    def message(self) -> dict[str, Any]:
        """The assistant's message."""
        parts = [told for _, told in self._parts]
        content, refusal = (
            "".join(one.text for one in parts if one.is_refusal is kind) for kind in (False, True)
        )
        calls = calls_of(self.for_client)
        return {
            "role": "assistant",
            "content": content or (None if refusal or calls else ""),
            "refusal": refusal or None,
            "annotations": annotations_of([cited for one in parts for cited in one.cited]),
            **({"tool_calls": calls} if calls else {}),
        }


class Void(Projection):
    """The ids of text events that a later `reset` has voided; it has no frames."""

    def __init__(self) -> None:
        super().__init__()
        self.ids_of_text: list[str] = []
        self.void: set[str] = set()

    def text(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """One more."""
        self.ids_of_text.append(self.cursor)
        return ()

    def reset(self, data: Any) -> Iterable[Frame]:
        """All after the stage's beginning: stages follow one another."""
        began = Cursor.parse(data["discard_after"]).offset
        self.void |= {one for one in self.ids_of_text if Cursor.parse(one).offset > began}
        return ()


async def until_over(
    chunks: AsyncGenerator[bytes, None], chat: Chat, heartbeat: float
) -> AsyncGenerator[bytes, None]:
    """A chat's frames, to the log's end or its own."""
    async with aclosing(alive(projected(chunks, chat), heartbeat)) as frames:
        async for frame in frames:
            yield frame
            if chat.over:
                return


class ChatStream(CutStream):
    """A stream that may end before its log does."""

    def __init__(self, gateway: Gateway, record: Record, chat: Chat) -> None:
        ending = Ending()
        chunks = gateway.parts.relay.follow(record.id, None, ending, record.owner)
        frames = until_over(chunks, chat, gateway.settings.heartbeat)
        super().__init__(frames, where(record.id), ending)
        self._chat = chat

    def _in_order(self) -> bool:
        return self._chat.over or super()._in_order()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for."""

    start: Start
    stream: bool
    usage: bool


def parse(value: Any, gateway: Gateway) -> Asked:
    """The rules of the body. Raises Invalid, which names the field, and ModelNotFound."""
    chain, params = fields.common(value, _OWN, gateway.chains, gateway.inputs)
    messages = value.get("messages")
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise Invalid("messages", "must be a list of objects")
    start: dict[str, Any] = {
        "chain": chain,
        "params": params,
        "messages": [fields.message(f"messages[{n}]", one) for n, one in enumerate(messages)],
    }
    if told := fields.metadata(value):
        start["metadata"] = told
    options = value.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise Invalid("stream_options", "must be an object")
    usage = fields.flag(options or {}, "include_usage")
    return Asked(parse_start(start, gateway.chains, gateway.bounds), fields.flag(value, "stream"), usage)


@answered("/v1/chat/completions", shape=refusal)
async def openai_chat_completions(gateway: Gateway, request: Request) -> Response:
    """POST /v1/chat/completions."""
    owner = await request_head.owner(gateway, request)
    asked, digest = await read_json(
        request,
        gateway.bounds,
        lambda value: (parse(value, gateway), repeats.digest_of(request, value)),
        owner,
    )
    gateway.parts.hub.check_room(owner=owner)
    again = await repeats.joined(gateway, request, owner, digest)
    record = again or await begin(gateway, request, asked.start, owner, followed=asked.stream)
    with begun(record):
        if again is None:
            await repeats.note(gateway, owner, digest, record)
        if not asked.stream:
            answer = await at_the_end(gateway, request, record, Whole, lambda told: whole(record, told))
            if answer.status_code != 200:
                await repeats.forget(gateway, owner, digest)
            return answer
        gateway.parts.hub.check_room(record.id, record.owner)
        void: set[str] = set()
        if again or request_head.idempotency_key(request):  # perhaps it is asked again
            void = (await replayed(gateway, record, Void)).void
        return ChatStream(gateway, record, Chat(frozenset(void), asked.usage))


def whole(record: Record, told: Whole) -> ToldLate:
    """The answer to who has waited for the end."""
    fold = told.fold
    if fold.ended is not Status.DONE:
        error = fold.error or {"message": CANCELLED, "code": "cancelled", "retryable": False}
        status = 500 if fold.error else 409
        should = {"x-should-retry": "true" if error["retryable"] else "false"}
        return ToldLate(error_of(error["message"], error["code"], status), status, should)
    message = told.message()
    finish = finish_of(told.reason, told.for_client, refuses=message["refusal"] is not None)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    first = head(record.id, record.chain, protocol.iso(record.created_ms), "chat.completion")
    return ToldLate({**first, "choices": [choice], "usage": usage_of(fold.usage)})


def head(stream_id: str, chain: str, created_at: str, kind: str = "chat.completion.chunk") -> dict[str, Any]:
    """What every object of this format begins with."""
    return {"id": f"chatcmpl-{stream_id}", "object": kind, "created": seconds(created_at), "model": chain}


def calls_of(asked: Sequence[Unanswered]) -> list[dict[str, Any]]:
    """Calls for the client, as a message has them."""
    return [call(one.call_id, one.name, one.arguments) for one in asked]


def annotations_of(cited: Sequence[Any]) -> list[dict[str, Any]]:
    """What is cited, as this format has it."""
    return [{"type": "url_citation", "url_citation": page} for page in pages_of(cited)]


def finish_of(reason: str, asked: Sequence[Unanswered] = (), *, refuses: bool = False) -> str:
    """Why it has ended, in OpenAI's words; a model that has said its refusal has ended by itself."""
    if asked:
        return CALLS
    if reason == "refusal" and not refuses:
        return "content_filter"
    return reason if reason in _FINISHES else "stop"


def usage_of(usage: Mapping[str, int] | None) -> dict[str, int]:
    """Tokens, in this format's words."""
    given, said, both = tokens(usage)
    return {"prompt_tokens": given, "completion_tokens": said, "total_tokens": both}


ROUTES = (Route("POST", "/v1/chat/completions", openai_chat_completions),)
