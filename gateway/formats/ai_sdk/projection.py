"""Vercel AI SDK's UI message stream (npm `ai` 5, 6 and 7) as a projection of the log.

One stream is one assistant message, one run of a stage is a step, and what a run says is one text part, known
by a name of ours: no client can take a part back, so a reset tells the names of those that are void
(`data-reset`), and a replay that all before it is (`data-replay`). An unknown type is fatal to a client, like
a delta of a part that is not open: here stands only what all three versions know.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.formats.base.approvals import approvals_in
from gateway.formats.base.calls import Unanswered
from gateway.formats.base.projection import Frame, Projection
from gateway.protocol import sse
from gateway.protocol.fold import StageText

OURS = "holdfast"  # whose names they are, in a part's provider metadata
TEXT, REASONING = "text", "reasoning"
MOST_SOURCES = 50  # of one event, in the bounds of its frames
DONE = Frame(b"[DONE]")
# A client takes a reason that it does not know for an error; these are known to all versions.
_REASONS = {
    "stop": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content-filter",
    "safety": "content-filter",
    "refusal": "content-filter",
    "tool_calls": "tool-calls",
    "tool_use": "tool-calls",
    "function_call": "tool-calls",
}


@dataclass(frozen=True, slots=True)
class _Call:
    """A tool call that has begun, and what the client knows it as."""

    call_id: str
    kind: tuple[Any, ...]
    shown: str

    @staticmethod
    def kind_of(data: Any) -> tuple[Any, ...]:
        """What two events of one call have in common beside its id."""
        return data["name"], data["stage"], data.get("run")

    def is_of(self, asked: Unanswered) -> bool:
        """Whether it is this one."""
        return (self.call_id, self.kind) == (asked.call_id, (asked.name, asked.stage, asked.run))


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """A call as the client has it, and whether it may be made."""

    call_id: str
    name: str
    is_approved: bool
    input: Any = field(default=None, repr=False)


@dataclass
class UIMessageStream(Projection):
    """`message_id` is the stream's own, so that a replay is of the same message.

    `again`: the client may have parts in it already, of an earlier connection or of the message before.
    `approvals`: the client knows how to be asked for leave to call a tool; an older one fails at that.
    `settled`: calls in the message before that this stream's start has answered.
    """

    message_id: str
    again: bool = False
    approvals: bool = False
    settled: Sequence[AnsweredCall] = ()
    _stage: str = field(default="", init=False)  # its `started` event's id
    _in_step: bool = field(default=False, init=False)
    # The names of what stands, by stage; what is being written, by kind and run.
    _parts: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list), init=False)
    _open: dict[tuple[str, str], str] = field(default_factory=dict, init=False)
    _calls: list[_Call] = field(default_factory=list, init=False)  # that have no end yet
    _shown: set[str] = field(default_factory=set, init=False)

    def shared_as(self) -> Hashable:
        """What the client has already, and what it knows."""
        settled = [(one.call_id, one.name, one.is_approved, one.input) for one in self.settled]
        return self.again, self.approvals, sse.dumps(settled)

    def start(self, data: Any) -> Iterator[Frame]:
        """The message begins."""
        known = {"chain": data["chain"], "created_at": data["created_at"]}
        yield _chunk("start", messageId=self.message_id, messageMetadata=known)
        # The client has begun with a copy of the message before. A call that is answered and not settled
        # there would have it send the same answer again at the end, and again.
        for call in self.settled:
            yield _settle(call)
        if self.again:
            # Version 5 adds a replay to what it had, where it has seen the connection break. All versions
            # add an answer to a copy of the message whose tools they have answered.
            yield _chunk("data-replay", data={})

    def stage(self, data: Any) -> Iterator[Frame]:
        """A chain's stage is a step; a graph's node is not, since several may run at once."""
        started, is_step = data["state"] == "started", "parent" not in data
        if started and is_step:
            self._stage, self._in_step = self.cursor, True
            yield _chunk("start-step")
        if not started:
            yield from self._close(*self._runs(data["name"], data["run"], data.get("parent", "")))
        yield _chunk("data-stage", data=data, transient=True)
        if not started and is_step:
            yield from self._end_step()

    def text(self, stage: StageText, delta: str) -> Iterator[Frame]:
        """A piece of a run's one text part."""
        yield from self._close(stage.started_id, kind=REASONING)
        yield from self._say(TEXT, stage, delta)

    def custom(self, data: Any) -> Iterator[Frame]:
        """A part of its own; what a model says of its reasoning is known to the clients."""
        said = data["data"]
        delta = said.get("delta") if data["name"] == REASONING and isinstance(said, dict) else None
        if isinstance(delta, str):
            yield from self._say(REASONING, self._speaker(data), delta)
        else:
            # Without an id at its top: by that, version 5 would find a replayed one among the void.
            yield _chunk("data-custom", data={"part": self._named(self.cursor), **data})

    def citations(self, data: Any) -> Iterator[Frame]:
        """A page is a source, known to the clients; anything else that is cited is a part of its own."""
        others = []
        speaker = self._speaker(data)
        of = {"stage": speaker.name, "run": speaker.run} if speaker else {}
        for number, one in enumerate(data["citations"]):
            page = one.get("url_citation", one) if isinstance(one, dict) else None
            if not isinstance(page, dict) or not isinstance(page.get("url"), str) or number >= MOST_SOURCES:
                others.append(one)
                continue
            part = self._named(f"{self.cursor}.{number}")
            title = {"title": page["title"]} if isinstance(page.get("title"), str) else {}
            known = {"sourceId": part, "url": page["url"], **title}
            yield _chunk("source-url", **known, providerMetadata={OURS: {"part": part, **of}})
        if others:
            told = {"name": "citations", "stage": data["stage"], "data": others}
            yield _chunk("data-custom", data={"part": self._named(self.cursor), **told})

    def tool(self, data: Any) -> Iterator[Frame]:
        """The chain runs it (`providerExecuted`), as far as is known: the client must not do it."""
        if data["state"] == "started":
            yield self._call(data, data["input"])
            return
        call = self._called(data)
        if call is None:
            yield self._call(data, None)
            call = self._calls[-1]
        self._calls.remove(call)
        known = {"toolCallId": call.shown, "dynamic": True, "providerExecuted": True}
        if data["state"] == "finished":
            yield _chunk("tool-output-available", **known, output=data["output"])
        else:
            output = data["output"]
            said = output if isinstance(output, str) else "The tool failed."
            yield _chunk("tool-output-error", **known, errorText=said)

    def reset(self, data: Any) -> Iterator[Frame]:
        """The void parts are closed and named; what follows are new ones."""
        void = self._parts.pop(data["discard_after"], [])
        gone = set(void)
        self._calls = [call for call in self._calls if call.shown not in gone]
        yield from self._close()
        why = {name: data[name] for name in ("stage", "attempt", "reason")}
        yield _chunk("data-reset", data={"parts": void, **why})

    def done(self, data: Any) -> Iterator[Frame]:
        """The message is whole. Calls that nobody here has answered are the client's, as is known now."""
        for asked in self.for_client:
            yield from (self._hand_over(call, asked) for call in self._calls if call.is_of(asked))
        yield from self._end_step()
        yield from self._ask(data.get("interrupts"))
        reason = _REASONS.get(str(data["finish_reason"]).lower(), "other")
        yield _chunk("finish", finishReason=reason, messageMetadata={"status": "done", **data})
        yield DONE

    def failed(self, data: Any) -> Iterator[Frame]:
        """The client raises `errorText`; one that comes back by itself does until there is a `finish`."""
        yield from self._end_step()
        yield _chunk("message-metadata", messageMetadata={"status": "failed", "error": data})
        yield _chunk("error", errorText=data["message"])
        yield _chunk("finish", finishReason="error")
        yield DONE

    def cancelled(self) -> Iterator[Frame]:
        """To the clients an end as any other, so the metadata tells."""
        yield from self._end_step()
        yield _chunk("message-metadata", messageMetadata={"status": "cancelled"})
        yield _chunk("abort", reason="cancelled")
        yield _chunk("finish", finishReason="other")
        yield DONE

    def _say(self, kind: str, stage: StageText | None, delta: str) -> Iterator[Frame]:
        """A piece of what a run says or thinks, in the part that it has begun or begins now."""
        where = (kind, stage.started_id if stage else "")
        if where not in self._open:
            self._open[where] = part = self._named(self.cursor)
            of = {"stage": stage.name, "run": stage.run} if stage else {}
            yield _chunk(f"{kind}-start", id=part, providerMetadata={OURS: {"part": part, **of}})
        yield _chunk(f"{kind}-delta", id=self._open[where], delta=delta)

    def _named(self, part: str) -> str:
        """This name, as one of what stands of the stage."""
        self._parts[self._stage].append(part)
        return part

    def _close(self, *runs: str, kind: str = "") -> Iterator[Frame]:
        """End what is being written: of these runs, or of all."""
        for which, run in list(self._open):
            if (not runs or run in runs) and kind in ("", which):
                yield _chunk(f"{which}-end", id=self._open.pop((which, run)))

    def _end_step(self) -> Iterator[Frame]:
        yield from self._close()
        if self._in_step:
            self._in_step = False
            yield _chunk("finish-step")

    def _runs(self, name: str, run: int, parent: str) -> Iterable[str]:
        """The `started` events' ids of those that end here."""
        known = (name, run, parent)
        found = [s.started_id for s in self.fold.stages if (s.name, s.run, s.parent) == known]
        return found or [""]

    def _speaker(self, data: Any) -> StageText | None:
        """The run that an event without text belongs to."""
        name, run = data["stage"], data.get("run")
        named = [stage for stage in reversed(self.fold.stages) if stage.name == name]
        return next((stage for stage in named if run in (None, stage.run)), None)

    def _call(self, data: Any, said: Any) -> Frame:
        """It begins. Models number their calls anew now and then; to the client each must be another."""
        call_id = data["call_id"]
        shown = call_id if call_id and call_id not in self._shown else f"call-{self.cursor}"
        self._shown.add(shown)
        self._calls.append(_Call(call_id, _Call.kind_of(data), self._named(shown)))
        known = {"toolCallId": shown, "toolName": data["name"], "input": said}
        return _chunk("tool-input-available", **known, dynamic=True, providerExecuted=True)

    def _hand_over(self, call: _Call, asked: Unanswered) -> Frame:
        """The same call again, which the client is to run."""
        known = {"toolCallId": call.shown, "toolName": asked.name, "input": asked.input}
        return _chunk("tool-input-available", **known, dynamic=True, providerExecuted=False)

    def _ask(self, questions: Any) -> Iterator[Frame]:
        """Each call for which leave is asked. Without the model's id in it, it is known by the question's."""
        for approval in approvals_in(questions) if self.approvals else ():
            shown = approval.id(self.message_id)
            known = {"toolCallId": shown, "toolName": approval.name, "input": approval.input}
            yield _chunk("tool-input-available", **known, dynamic=True, providerExecuted=True)
            yield _chunk("tool-approval-request", approvalId=shown, toolCallId=shown)

    def _called(self, data: Any) -> _Call | None:
        """The call that ends here. An attempt that goes on where another fell may know it by another id."""
        kind = _Call.kind_of(data)
        alike = [call for call in self._calls if call.kind == kind]
        same = [call for call in alike if call.call_id == data["call_id"]]
        return next(iter(same or alike), None)


def _chunk(kind: str, **more: Any) -> Frame:
    return Frame({"type": kind, **more})


def _settle(call: AnsweredCall) -> Frame:
    """The call is under way, or will never be."""
    if not call.is_approved:
        return _chunk("tool-output-denied", toolCallId=call.call_id)
    known = {"toolCallId": call.call_id, "toolName": call.name, "input": call.input}
    return _chunk("tool-input-available", **known, dynamic=True, providerExecuted=True)
