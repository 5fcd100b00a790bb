"""Makes the UI message stream of Vercel's AI SDK (npm `ai` 5, 6 and 7) from the log.

One stream is one assistant message, and one run of a stage is one step. The text of a run is one text part
with a name that this gateway chooses. A client cannot remove a part. So a reset sends the names of the void
parts (`data-reset`), and a replay sends that all parts before it are void (`data-replay`). A client stops
with an error at an unknown type of chunk, or at a delta of a part that is not open. So only chunks that all
three versions know are sent.
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

OURS = "holdfast"  # key of this gateway's names of parts, in a part's provider metadata
TEXT, REASONING = "text", "reasoning"
MOST_SOURCES = 50  # most sources of one event; below the limit of frames of one event
DONE = Frame(b"[DONE]")
# Finish reasons of models, and the client's reasons for them. An unknown reason is an error in a client. All
# versions know these.
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
    """A tool call that has begun. `shown` is the id that the client got for the call."""

    call_id: str
    kind: tuple[Any, ...]
    shown: str

    @staticmethod
    def kind_of(data: Any) -> tuple[Any, ...]:
        """Return the values, other than the id, that are equal in all events of one call."""
        return data["name"], data["stage"], data.get("run")

    def is_of(self, asked: Unanswered) -> bool:
        """Return whether `asked` is this call."""
        return (self.call_id, self.kind) == (asked.call_id, (asked.name, asked.stage, asked.run))


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """A tool call that the client has, and the client's decision whether the call is approved."""

    call_id: str
    name: str
    is_approved: bool
    input: Any = field(default=None, repr=False)


@dataclass
class UIMessageStream(Projection):
    """One reader's view of a stream as a UI message stream.

    `message_id` is the stream's id, so that a replay has the same message.
    `again`: the client's message may already have parts, from an earlier connection or the message before.
    `approvals`: the client understands a request for permission to call a tool; an older client fails at it.
    `settled`: tool calls in the message before, whose approvals were answered by the request for this stream.
    """

    message_id: str
    again: bool = False
    approvals: bool = False
    settled: Sequence[AnsweredCall] = ()
    _stage: str = field(default="", init=False)  # the id of the present stage's `started` event
    _in_step: bool = field(default=False, init=False)
    # `_parts`: the names of the parts that are not void, by stage. `_open`: the names of the parts that are
    # being written, by kind and run.
    _parts: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list), init=False)
    _open: dict[tuple[str, str], str] = field(default_factory=dict, init=False)
    _calls: list[_Call] = field(default_factory=list, init=False)  # calls that have not ended
    _shown: set[str] = field(default_factory=set, init=False)

    def shared_as(self) -> Hashable:
        """Return the settings of this reader that change the frames."""
        settled = [(one.call_id, one.name, one.is_approved, one.input) for one in self.settled]
        return self.again, self.approvals, sse.dumps(settled)

    def start(self, data: Any) -> Iterator[Frame]:
        """Make the chunks that start the message."""
        known = {"chain": data["chain"], "created_at": data["created_at"]}
        yield _chunk("start", messageId=self.message_id, messageMetadata=known)
        # The client's message began as a copy of the message before. If an answered call stayed unsettled in
        # this copy, the client would send the same answer again at the end of every stream.
        for call in self.settled:
            yield _settle(call)
        if self.again:
            # If the connection broke, version 5 appends a replay to the parts that it has. After a client
            # has answered a message's tool calls, all versions append the answer to a copy of this message.
            yield _chunk("data-replay", data={})

    def stage(self, data: Any) -> Iterator[Frame]:
        """Make the chunks of a stage's start or end.

        A chain's stage is a step. A graph's node is not a step, because several nodes may run at once.
        """
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
        """Make the chunks of a piece of text. All text of a run is one part."""
        yield from self._close(stage.started_id, kind=REASONING)
        yield from self._say(TEXT, stage, delta)

    def custom(self, data: Any) -> Iterator[Frame]:
        """Make the chunks of a `custom` event: a reasoning part for a model's reasoning, else a data part."""
        said = data["data"]
        delta = said.get("delta") if data["name"] == REASONING and isinstance(said, dict) else None
        if isinstance(delta, str):
            yield from self._say(REASONING, self._speaker(data), delta)
        else:
            # The chunk has no `id` at its top level. With an `id`, version 5 would match a replayed chunk to
            # the void chunk that has the same `id`.
            yield _chunk("data-custom", data={"part": self._named(self.cursor), **data})

    def citations(self, data: Any) -> Iterator[Frame]:
        """Make a source chunk for each cited web page, and one separate part for all other citations."""
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
        """Make the chunk of a tool call's start or end.

        The chunk has `providerExecuted`: as far as is known, the chain runs the tool. The client must not.
        """
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
        """Close the open parts, and send the names of the void parts. Later parts are new."""
        void = self._parts.pop(data["discard_after"], [])
        gone = set(void)
        self._calls = [call for call in self._calls if call.shown not in gone]
        yield from self._close()
        why = {name: data[name] for name in ("stage", "attempt", "reason")}
        yield _chunk("data-reset", data={"parts": void, **why})

    def done(self, data: Any) -> Iterator[Frame]:
        """Make the chunks that end the message.

        Only now it is known which tool calls have no answer: the client must run them.
        """
        for asked in self.for_client:
            yield from (self._hand_over(call, asked) for call in self._calls if call.is_of(asked))
        yield from self._end_step()
        yield from self._ask(data.get("interrupts"))
        reason = _REASONS.get(str(data["finish_reason"]).lower(), "other")
        yield _chunk("finish", finishReason=reason, messageMetadata={"status": "done", **data})
        yield DONE

    def failed(self, data: Any) -> Iterator[Frame]:
        """Make the chunks that end a failed message.

        The client raises `errorText`. A client that reconnects by itself stops only at a `finish` chunk.
        """
        yield from self._end_step()
        yield _chunk("message-metadata", messageMetadata={"status": "failed", "error": data})
        yield _chunk("error", errorText=data["message"])
        yield _chunk("finish", finishReason="error")
        yield DONE

    def cancelled(self) -> Iterator[Frame]:
        """Make the chunks that end a cancelled message.

        For a client this end looks like any other end, so the metadata has the status.
        """
        yield from self._end_step()
        yield _chunk("message-metadata", messageMetadata={"status": "cancelled"})
        yield _chunk("abort", reason="cancelled")
        yield _chunk("finish", finishReason="other")
        yield DONE

    def _say(self, kind: str, stage: StageText | None, delta: str) -> Iterator[Frame]:
        """Make the chunks of a piece of a run's text or reasoning. If the run has no open part, start one."""
        where = (kind, stage.started_id if stage else "")
        if where not in self._open:
            self._open[where] = part = self._named(self.cursor)
            of = {"stage": stage.name, "run": stage.run} if stage else {}
            yield _chunk(f"{kind}-start", id=part, providerMetadata={OURS: {"part": part, **of}})
        yield _chunk(f"{kind}-delta", id=self._open[where], delta=delta)

    def _named(self, part: str) -> str:
        """Record this name as a part of the present stage, and return the name."""
        self._parts[self._stage].append(part)
        return part

    def _close(self, *runs: str, kind: str = "") -> Iterator[Frame]:
        """Close the open parts of these runs; without `runs`, of all runs.

        `kind`, if given, is the parts' kind.
        """
        for which, run in list(self._open):
            if (not runs or run in runs) and kind in ("", which):
                yield _chunk(f"{which}-end", id=self._open.pop((which, run)))

    def _end_step(self) -> Iterator[Frame]:
        yield from self._close()
        if self._in_step:
            self._in_step = False
            yield _chunk("finish-step")

    def _runs(self, name: str, run: int, parent: str) -> Iterable[str]:
        """Return the ids of the `started` events of the runs that end with this event."""
        known = (name, run, parent)
        found = [s.started_id for s in self.fold.stages if (s.name, s.run, s.parent) == known]
        return found or [""]

    def _speaker(self, data: Any) -> StageText | None:
        """Return the run that an event without text belongs to; None if there is none."""
        name, run = data["stage"], data.get("run")
        named = [stage for stage in reversed(self.fold.stages) if stage.name == name]
        return next((stage for stage in named if run in (None, stage.run)), None)

    def _call(self, data: Any, said: Any) -> Frame:
        """Make the chunk that starts a tool call.

        A model may use the same call id twice. The client needs a different id for each call.
        """
        call_id = data["call_id"]
        shown = call_id if call_id and call_id not in self._shown else f"call-{self.cursor}"
        self._shown.add(shown)
        self._calls.append(_Call(call_id, _Call.kind_of(data), self._named(shown)))
        known = {"toolCallId": shown, "toolName": data["name"], "input": said}
        return _chunk("tool-input-available", **known, dynamic=True, providerExecuted=True)

    def _hand_over(self, call: _Call, asked: Unanswered) -> Frame:
        """Make the chunk that starts the same call again, now as a call that the client must run."""
        known = {"toolCallId": call.shown, "toolName": asked.name, "input": asked.input}
        return _chunk("tool-input-available", **known, dynamic=True, providerExecuted=False)

    def _ask(self, questions: Any) -> Iterator[Frame]:
        """Make the chunks that ask for approval of tool calls.

        A question does not contain the model's id of the call, so the approval's id is used as the call's id.
        """
        for approval in approvals_in(questions) if self.approvals else ():
            shown = approval.id(self.message_id)
            known = {"toolCallId": shown, "toolName": approval.name, "input": approval.input}
            yield _chunk("tool-input-available", **known, dynamic=True, providerExecuted=True)
            yield _chunk("tool-approval-request", approvalId=shown, toolCallId=shown)

    def _called(self, data: Any) -> _Call | None:
        """Return the open call that ends with this event, or None.

        When an attempt continues after a failed attempt, the call may have a different id.
        """
        kind = _Call.kind_of(data)
        alike = [call for call in self._calls if call.kind == kind]
        same = [call for call in alike if call.call_id == data["call_id"]]
        return next(iter(same or alike), None)


def _chunk(kind: str, **more: Any) -> Frame:
    return Frame({"type": kind, **more})


def _settle(call: AnsweredCall) -> Frame:
    """Make the chunk that settles an answered call: the call is being run, or it was denied."""
    if not call.is_approved:
        return _chunk("tool-output-denied", toolCallId=call.call_id)
    known = {"toolCallId": call.call_id, "toolName": call.name, "input": call.input}
    return _chunk("tool-input-available", **known, dynamic=True, providerExecuted=True)
