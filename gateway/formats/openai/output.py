"""OpenAI's Responses as a projection: a stream's events as theirs, and the whole response at any moment.

A `reset` ends the open items of its stage as `incomplete`, and what is said instead comes in new items: no
output index is used twice. The response itself holds only what stands.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.formats.base.answer_text import Answer, Piece, is_of
from gateway.formats.base.approvals import Approval, approvals_in
from gateway.formats.base.calls import Unanswered
from gateway.formats.base.projection import MOST_FRAMES, Frame, Projection
from gateway.formats.base.spoken import result_of
from gateway.formats.openai.common import pages_of, seconds, tokens
from gateway.formats.openai.items import (
    ApprovalRequest,
    Aside,
    Call,
    FunctionCall,
    Item,
    Message,
    Reasoning,
    Refusal,
    Text,
    Told,
    json_text,
)
from gateway.protocol import Cursor, Event, EventType, Status, sse
from gateway.protocol.fold import StageText

# Each may take three frames to close, and one event has at most 64: a reset closes all.
MOST_OPEN = 20
REASONING = "reasoning"  # the product's own custom event
_STATUS = {Status.DONE: "completed", Status.FAILED: "failed", Status.CANCELLED: "cancelled"}
# A model that was stopped leaves an incomplete response (OpenAI's API reference, `incomplete_details`).
_STOPPED = {"length": "max_output_tokens", "content_filter": "content_filter"}
_OUTSIDE = frozenset((EventType.START, EventType.DONE, EventType.FAILED, EventType.CANCELLED))


@dataclass
class Responses(Projection):
    """`asked`: members of the response that are its request's."""

    asked: Mapping[str, Any] = field(default_factory=dict)
    _head: dict[str, Any] = field(default_factory=dict, init=False)
    _stream: str = field(default="", init=False)
    _running: bool = field(default=False, init=False)
    _items: list[Item] = field(default_factory=list, init=False)  # those that are not void
    _open: dict[Hashable, Item] = field(default_factory=dict, init=False)  # the oldest first
    _count: int = field(default=0, init=False)  # of all items, which is the next one's index
    _said: int = field(default=0, init=False)  # frames of this event
    _stopped: str = field(default="", init=False)  # why the answer is incomplete
    _answer: Answer = field(default_factory=Answer, init=False)
    _result: str = field(default="", init=False)  # the last stage's JSON, which may be the answer
    _result_of: StageText | None = field(default=None, init=False)  # it, where it was told as the answer
    _speaker: StageText | None = field(default=None, init=False)  # in the end, whose text is the answer

    def feed(self, event_id: str, event: Event) -> list[Frame]:
        """The frames of the next event, in order."""
        self._said, begun = 0, []
        if not self._running and event.type not in _OUTSIDE:
            self._running, self.cursor = True, event_id
            begun = [self._frame("response.in_progress", {"response": self.document()})]
        return [*begun, *super().feed(event_id, event)]

    def shared_as(self) -> Hashable:
        """What its request has asked for."""
        return sse.dumps(sorted(self.asked.items()))

    def document(self) -> dict[str, Any]:
        """The response, as it stands after the events so far."""
        given, said, both = tokens(self.fold.usage)
        usage = {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": both,
        }
        error, live = self.fold.error, "in_progress" if self._running else "queued"
        return {
            **self._head,
            "status": self._ended() if self.fold.ended else live,
            "error": error and {"code": error["code"], "message": error["message"]},
            "incomplete_details": {"reason": self._stopped} if self._stopped else None,
            "instructions": None,
            "max_output_tokens": None,
            "output": [item.document() for item in self._output()],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": True,
            "temperature": None,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "truncation": "disabled",
            "usage": usage if self.fold.usage is not None else None,
            **self.asked,
        }

    @property
    def items(self) -> int:
        """How many items the response has had, with those that do not stand."""
        return self._count

    def answer(self) -> str:
        """The text that a client adds up: of all messages."""
        return "".join(item.text for item in self._output() if isinstance(item, Message))

    def start(self, data: Any) -> Iterable[Frame]:
        """It waits."""
        self._stream = data["id"]
        self._head = {
            "id": f"resp_{self._stream}",
            "object": "response",
            "created_at": seconds(data["created_at"]),
            "model": data["chain"],
        }
        yield self._frame("response.created", {"response": self.document()})

    def text(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """Each run of a stage, or of a node, has an item of its own."""
        return self._say(stage, delta, Message)

    def refusal(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """Likewise, with a part of its own kind."""
        return self._say(stage, delta, Refusal)

    def citations(self, data: Any) -> Iterable[Frame]:
        """What the answer cites, as annotations of its text."""
        stage = self.stage_of(data)
        if stage is None or not self._answer.cites(stage, data["citations"]):
            return
        if isinstance(item := self._open.get((Message, stage.started_id)), Message):
            for page in pages_of(data["citations"]):
                yield from self._if_room([item.cites(page)])

    def custom(self, data: Any) -> Iterable[Frame]:
        """A model's reasoning, and a JSON result instead of a text; all else has no place in this format."""
        said = data["data"]
        delta = said.get("delta") if data["name"] == REASONING and isinstance(said, dict) else None
        stage = self.stage_of(data)
        if stage is not None and isinstance(delta, str):
            yield from self._more((REASONING, stage.started_id), Reasoning, stage, delta)
        if stage is not None and (result := result_of(self.last, data)) and not stage.pieces:
            if self._answer.is_silent:
                self._result_of = stage
                yield from self._more((Message, stage.started_id), Message, stage, result)
            else:
                self._result = result

    def tool(self, data: Any) -> Iterable[Frame]:
        """A call, and its answer."""
        key = "tool", data["stage"], data.get("run"), data["call_id"]
        if data["state"] == "started" and key in self._open:  # models number their calls anew now and then
            yield from self._close(key, "incomplete")
        if key not in self._open:
            call = Call(self._count, self._stream, self._offset(), self.stage_of(data), name=data["name"])
            call.label, call.arguments = data["stage"], json_text(data.get("input", {}))
            yield from self._begin(key, call)
        if data["state"] != "started":
            ended = self._open.pop(key)
            assert isinstance(ended, Call)
            yield from self._frames(ended.answered(data["output"], failed=data["state"] == "failed"))

    def stage(self, data: Any) -> Iterable[Frame]:
        """What this run has said is whole when it ends."""
        if data["state"] == "finished":
            run = data["name"], data["run"], data.get("parent", "")
            for key, item in list(self._open.items()):
                if item.stage and (item.stage.name, item.stage.run, item.stage.parent) == run:
                    yield from self._close(key)
        yield from self._tell(self._answer.staged(data))

    def reset(self, data: Any) -> Iterable[Frame]:
        """All after the stage's beginning is void: stages follow one another."""
        began = Cursor.parse(data["discard_after"]).offset
        for key, item in list(self._open.items()):
            if item.born > began:
                yield from self._close(key, "incomplete")
        self._items = [item for item in self._items if item.born <= began]
        self._answer.void(began)
        self._result, self._result_of = "", None

    def done(self, data: Any) -> Iterable[Frame]:
        """The whole response, or what there is of it where the model was stopped."""
        self._stopped = _STOPPED.get(data["finish_reason"], "")
        yield from self._close_all("completed")
        rest = [] if self._result_of else self._answer.rest(self.fold, self.last, self._result)
        spoken = (stage for stage in reversed(self.fold.stages) if self._answer.is_told(stage))
        self._speaker = next(spoken, self._result_of or (rest[0].stage if rest else None))
        yield from self._tell([piece for piece in rest if piece.stage is self._speaker])
        for approval in approvals_in(data.get("interrupts")):
            yield from self._ask(approval)
        yield from self._end(f"response.{self._ended()}", "completed")

    def failed(self, data: Any) -> Iterable[Frame]:
        """What stands, and why there is no more."""
        yield from self._end("response.failed", "incomplete")

    def cancelled(self) -> Iterable[Frame]:
        """No client knows an event of this name: the response's status says it."""
        yield from self._end("response.incomplete", "incomplete")

    def _ended(self) -> str:
        return "incomplete" if self._stopped else _STATUS[self.fold.ended or Status.DONE]

    def _end(self, kind: str, status: str) -> Iterable[Frame]:
        yield from self._close_all(status)
        asked = {call.offset for call in self.for_client}
        self._items = [item for item in self._items if not (isinstance(item, Call) and item.born in asked)]
        for call in self.for_client:
            yield from self._hand_over(call)
        yield self._frame(kind, {"response": self.document()})

    def _hand_over(self, call: Unanswered) -> Iterable[Frame]:
        """A call that is the client's, as an item of its own; without room in the event, at the end alone."""
        item = FunctionCall(self._count, self._stream, call.offset, None)
        item.call_id, item.name, item.arguments = call.call_id, call.name, call.arguments
        self._count += 1
        self._items.append(item)
        yield from self._if_room([*item.opening(), *item.closing("completed")])

    def _ask(self, approval: Approval) -> Iterable[Frame]:
        """A call for which leave is asked, likewise."""
        item = ApprovalRequest(self._count, self._stream, self._offset(), None)
        item.approval, item.name = approval.id(self._stream), approval.name
        item.label, item.arguments = self.last, json_text(approval.input)
        self._count += 1
        self._items.append(item)
        yield from self._if_room([*item.opening(), *item.closing("completed")])

    def _say(self, stage: StageText, delta: str, kind: type[Message]) -> Iterable[Frame]:
        """A piece of a run's text: the answer's, or reasoning for now."""
        yield from self._close_of(stage, REASONING)
        if not is_of(self.last, stage):
            yield from self._more((Reasoning, stage.started_id), Reasoning, stage, delta)
            return
        says = self._answer.says(stage, self.aside, self._offset())
        if says is False:
            self._answer.wait(stage, delta, is_refusal=kind is Refusal)
        shown = kind if says else Reasoning if says is None else Aside
        yield from self._more((shown, stage.started_id), shown, stage, delta)

    def _tell(self, pieces: Sequence[Piece]) -> Iterable[Frame]:
        """What of one run, or of none, has turned out to be the answer, in items of its own."""
        pages = [page for piece in pieces for page in pages_of(piece.cited)]
        for piece in pieces:
            if not piece.text:
                continue
            kind = Refusal if piece.is_refusal else Message
            item = kind(self._count, self._stream, self._offset(), piece.stage)
            told = [
                *item.opening(),
                item.more(piece.text),
                *([] if piece.is_refusal else map(item.cites, pages)),
            ]
            self._count += 1
            # It was shown as reasoning, while nothing else was known.
            kept = [one for one in self._items if not (isinstance(one, Aside) and one.stage is piece.stage)]
            self._items = [*kept, item]
            yield from self._if_room([*told, *item.closing("completed")])

    def _output(self) -> list[Item]:
        """What stands. In the end only one run's text is the answer: a client adds up all messages."""
        if self.fold.ended is not Status.DONE:
            return self._items  # as the stream has named them: clients compare
        return [
            Reasoning.of(item) if isinstance(item, Message) and item.stage is not self._speaker else item
            for item in self._items
        ]

    def _more(self, key: Hashable, kind: type[Text], stage: StageText, delta: str) -> Iterable[Frame]:
        if key not in self._open:
            yield from self._begin(key, kind(self._count, self._stream, self._offset(), stage))
        item = self._open[key]
        assert isinstance(item, Text)
        yield self._frame(*item.more(delta))

    def _begin(self, key: Hashable, item: Item) -> Iterable[Frame]:
        if len(self._open) >= MOST_OPEN:
            yield from self._close(next(iter(self._open)))  # it goes on in another item
        self._count += 1
        self._open[key] = item
        yield from self._frames(item.opening())
        self._items.append(item)

    def _close(self, key: Hashable, status: str = "completed") -> Iterable[Frame]:
        yield from self._frames(self._open.pop(key).closing(status))

    def _close_all(self, status: str) -> Iterable[Frame]:
        for key in list(self._open):
            yield from self._close(key, status)

    def _close_of(self, stage: StageText, what: str) -> Iterable[Frame]:
        if (what, stage.started_id) in self._open:
            yield from self._close((what, stage.started_id))

    def _offset(self) -> int:
        return Cursor.parse(self.cursor).offset

    def _if_room(self, told: Sequence[Told]) -> Iterable[Frame]:
        """These frames, or none where the event has no room for all: the response has it at the end."""
        if self._said + len(told) < MOST_FRAMES:
            yield from self._frames(told)

    def _frames(self, told: Iterable[Told]) -> Iterable[Frame]:
        for kind, fields in told:
            yield self._frame(kind, fields)

    def _frame(self, kind: str, fields: Mapping[str, Any]) -> Frame:
        number = self.place(self._said).number
        self._said += 1
        return Frame({"type": kind, "sequence_number": number, **fields}, event=kind)
