"""AG-UI 1.0's events, as a projection of the log.

A run's answer is told as text messages; what else a chain says (earlier stages, a model's thoughts, what a
graph says on the way) as reasoning, which no client takes for the assistant's. A message is known by a name
of ours, the same in every connection. Every connection begins with the conversation before the run
(MESSAGES_SNAPSHOT): so a client that repeats its request, and has half a message already, has it anew and not
twice. No event takes a message back: after a `reset` a snapshot has those that stand.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.formats.agui.interrupts import interrupts_of
from gateway.formats.agui.messages import FAILED
from gateway.formats.agui.said import Said
from gateway.formats.agui.subagents import Below
from gateway.formats.agui.writing import OURS, PROTOCOL, REASONING, TEXT, OpenMessages, event, usage_of
from gateway.formats.base.answer_text import Answer, Piece, is_of
from gateway.formats.base.projection import Frame, Projection
from gateway.protocol import Cursor, sse
from gateway.protocol.fold import StageText
from gateway.streams.messages import call as made_call

STATES = (
    "state",
    "manually_emit_state",
)  # custom events that are the run's state, ours and ag-ui-langgraph's


@dataclass(slots=True)
class _Call:
    """A tool call that has begun and has no end; `shown`: what the client knows it as."""

    call_id: str
    kind: tuple[Any, ...]
    shown: str


@dataclass
class RunEvents(Projection):
    """One run. `stream_id` is the stream's own; `kept` is what the run was asked with (`Asked.kept`)."""

    ids = True
    stream_id: str
    kept: Mapping[str, Any] = field(repr=False)
    _said: Said = field(default_factory=Said, init=False)
    _write: OpenMessages = field(init=False)
    _below: Below = field(init=False)
    _answer: Answer = field(default_factory=Answer, init=False)
    _result: list[Any] = field(default_factory=list, init=False)  # the last stage's, where that is JSON
    _steps: dict[tuple[str, int, str], str] = field(default_factory=dict, init=False)
    _calls: list[_Call] = field(default_factory=list, init=False)
    _shown: set[str] = field(default_factory=set, init=False)  # ids of calls that a client knows
    _caller: str = field(default="", init=False)  # the message that the next call is a part of
    _states: list[tuple[int, Any]] = field(default_factory=list, init=False)  # where each was told

    def __post_init__(self) -> None:
        self._write = OpenMessages(self._said, self.stream_id)
        self._below = Below(self._write, self._said)
        self._states = [(0, self.kept["state"])] if "state" in self.kept else []

    def shared_as(self) -> Hashable:
        """What a stream was asked with never changes; for a moment it is not known."""
        return self.kept["thread"], self.kept["run"]

    def feed(self, event_id: str, event: Any) -> list[Frame]:
        """The frames of the next event, in order."""
        self._write.at(event_id)
        return super().feed(event_id, event)

    def start(self, data: Any) -> Iterator[Frame]:
        """The run begins, behind the conversation that it was asked with."""
        parent = {"parentRunId": self.kept["parent"]} if "parent" in self.kept else {}
        own = {"stream": self.stream_id, "chain": data["chain"], "created_at": data["created_at"]}
        yield event("RUN_STARTED", **self._run, protocolVersion=PROTOCOL, **parent, metadata={OURS: own})
        if self.kept["messages"]:
            yield self._messages()
        if self._states:
            yield self._state()

    def stage(self, data: Any) -> Iterator[Frame]:
        """A stage, or a graph's node, is a step; at its end what it says ends, too."""
        key = data["name"], data["run"], data.get("parent", "")
        if data["state"] == "started":
            self._answer.staged(data)
            self._caller = self._caller if key[2] else ""
            if key in self._steps:
                yield event("STEP_FINISHED", stepName=self._steps.pop(key))
            name = self._steps[key] = self._step(*key)
            yield event("STEP_STARTED", stepName=name)
            return
        for piece in self._answer.staged(data):
            yield from self._tell(piece)
        ended = [one.started_id for one in self.fold.stages if (one.name, one.run, one.parent) == key]
        yield from self._write.end(*ended)
        if name := self._steps.pop(key, ""):
            yield event("STEP_FINISHED", stepName=name)

    def text(self, stage: StageText, delta: str) -> Iterator[Frame]:
        """A piece of the answer, or of reasoning."""
        return self._take(stage, delta, is_refusal=False)

    def refusal(self, stage: StageText, delta: str) -> Iterator[Frame]:
        """The same, of a refusal's words: to a client they are text."""
        return self._take(stage, delta, is_refusal=True)

    def custom(self, data: Any) -> Iterator[Frame]:
        """Thoughts, the run's state and its result have events of their own."""
        name, said = data["name"], data["data"]
        delta = said.get("delta") if name == "reasoning" and isinstance(said, dict) else None
        if isinstance(delta, str):
            stage = self.stage_of(data)
            yield from self._write.say(REASONING, stage.started_id if stage else "", delta)
        elif name in STATES:
            self._states.append((Cursor.parse(self.cursor).offset, said))
            yield event("STATE_SNAPSHOT", snapshot=said)
        elif name == "result" and data["stage"] == self.last:
            self._result = [said]
        else:
            where = {part: data[part] for part in ("stage", "run") if part in data}
            yield event("CUSTOM", name=name, value=said, metadata={OURS: where})

    def citations(self, data: Any) -> Iterator[Frame]:
        """What a model cites."""
        where = {part: data[part] for part in ("stage", "run") if part in data}
        yield event("CUSTOM", name="citations", value=data["citations"], metadata={OURS: where})

    def tool(self, data: Any) -> Iterator[Frame]:
        """A call, whole at its beginning, and its result. One that stays without is the client's to run."""
        if data["state"] == "started":
            yield from self._begin(data, data["input"])
            return
        call = self._called(data)
        if call is None:
            yield from self._begin(data, None)
            call = self._calls[-1]
        self._calls.remove(call)
        failed = data["state"] == "failed"
        yield from self._below.end(call.call_id, failed=failed)
        self._caller = ""
        yield self._write.result(call.shown, data["output"], FAILED if failed else None)

    def tool_within(self, data: Any) -> Iterator[Frame]:
        """A sub-agent's own call."""
        yield from self._below.begin(data["within"], self._calls_by_id)
        yield from self._below.tool(data)

    def nested(self, data: Any) -> Iterator[Frame]:
        """What a sub-agent says."""
        yield from self._below.begin(data["within"], self._calls_by_id)
        yield from self._below.said(data)

    def reset(self, data: Any) -> Iterator[Frame]:
        """What is being written ends, and a snapshot is without what is void."""
        since = Cursor.parse(data["discard_after"]).offset
        before = len(self._states)
        self._answer.void(since)
        self._states = [one for one in self._states if one[0] <= since]
        self._calls = []
        self._caller = ""
        yield from self._below.close()
        yield from self._write.end()
        for key in [key for key in self._steps if key[2] == data["stage"]]:
            yield event("STEP_FINISHED", stepName=self._steps.pop(key))
        self._said.void(since)
        yield self._messages()
        if len(self._states) != before:
            yield self._state()
        why = {name: data[name] for name in ("stage", "attempt", "reason")}
        yield event("CUSTOM", name="holdfast.reset", value=why)

    def done(self, data: Any) -> Iterator[Frame]:
        """The end: a success, perhaps with calls for the client, or questions."""
        result = "".join(sse.dumps(one).decode(errors="replace") for one in self._result)
        for piece in self._answer.rest(self.fold, self.last, result):
            yield from self._tell(piece)
        yield from self._close()
        told = {name: data[name] for name in ("finish_reason", "attempts", "duration_ms") if name in data}
        more: dict[str, Any] = {**usage_of(data.get("usage")), "metadata": {OURS: told}}
        if data.get("finish_reason") == "interrupted":
            yield self._state()
            yield self._messages()
            outcome: dict[str, Any] = {"type": "interrupt", "interrupts": interrupts_of(self.stream_id, data)}
        else:
            pending = [
                one.shown for one in self._calls if one.call_id in {c.call_id for c in self.for_client}
            ]
            outcome = {"type": "success"} | ({"pendingToolCallIds": pending} if pending else {})
            more |= {"result": self._result[0]} if self._result else {}
        yield event("RUN_FINISHED", **self._run, outcome=outcome, **more)

    def failed(self, data: Any) -> Iterator[Frame]:
        """The end, without a result."""
        yield from self._close()
        own = {"retryable": data["retryable"]} if "retryable" in data else {}
        more = usage_of(data.get("usage"))
        yield event("RUN_ERROR", message=data["message"], code=data["code"], **more, metadata={OURS: own})

    def cancelled(self) -> Iterator[Frame]:
        """The end, as somebody wished."""
        yield from self._close()
        yield event("RUN_FINISHED", **self._run, outcome={"type": "cancelled"})

    @property
    def _run(self) -> dict[str, str]:
        return {"threadId": self.kept["thread"], "runId": self.kept["run"]}

    @property
    def _calls_by_id(self) -> Mapping[str, tuple[str, str]]:
        """What the client knows each running call as, and the tool's name."""
        return {call.call_id: (call.shown, str(call.kind[0])) for call in self._calls}

    def _messages(self) -> Frame:
        return event("MESSAGES_SNAPSHOT", messages=[*self.kept["messages"], *self._said.told()])

    def _state(self) -> Frame:
        return event("STATE_SNAPSHOT", snapshot=self._states[-1][1] if self._states else {})

    def _step(self, name: str, run: int, parent: str) -> str:
        """A name that no open step has."""
        names: Sequence[str] = (name, f"{name}:{run}", f"{parent}/{name}:{run}")
        taken = set(self._steps.values())
        return next((one for one in names if one not in taken), f"{name}:{self.cursor}")

    def _take(self, stage: StageText, delta: str, *, is_refusal: bool) -> Iterator[Frame]:
        says = None
        if is_of(self.last, stage):
            says = self._answer.says(stage, self.aside, Cursor.parse(self.cursor).offset)
        if says:
            yield from self._tell(Piece(stage, delta, is_refusal))
        elif says is False:
            self._answer.wait(stage, delta, is_refusal=is_refusal)
        else:
            yield from self._write.say(REASONING, stage.started_id, delta)

    def _tell(self, piece: Piece) -> Iterator[Frame]:
        """A piece of the answer. A result that is JSON is told at the end alone."""
        if piece.stage is not None and piece.text:
            yield from self._write.end(piece.stage.started_id, kind=REASONING)
            yield from self._write.say(TEXT, piece.stage.started_id, piece.text)
            self._caller = self._write.last

    def _begin(self, data: Any, given: Any) -> Iterator[Frame]:
        """A call. Models number their calls anew now and then; to the client each must be another."""
        stages = [one.started_id for one in self.fold.stages if one.name == data["stage"]]
        yield from self._write.end(*(stages or ("",)))
        call_id = data["call_id"]
        shown = call_id if call_id and call_id not in self._shown else f"call-{self.cursor}"
        self._shown.add(shown)
        self._calls.append(_Call(call_id, (data["name"], data["stage"], data.get("run")), shown))
        if not self._caller:
            self._caller = self._write.name("m")
            self._said.begin(Cursor.parse(self.cursor).offset, self._caller, "assistant")
        arguments = sse.dumps(given if isinstance(given, dict) else {"input": given}).decode(errors="replace")
        self._said.call(self._caller, made_call(shown, data["name"], arguments))
        yield event(
            "TOOL_CALL_START", toolCallId=shown, toolCallName=data["name"], parentMessageId=self._caller
        )
        yield event("TOOL_CALL_ARGS", toolCallId=shown, delta=arguments)
        yield event("TOOL_CALL_END", toolCallId=shown)

    def _called(self, data: Any) -> _Call | None:
        """The call that ends here. An attempt that goes on where another fell may know it by another id."""
        kind = data["name"], data["stage"], data.get("run")
        alike = [call for call in self._calls if call.kind == kind]
        same = [call for call in alike if call.call_id == data["call_id"]]
        return next(iter(same or alike), None)

    def _close(self) -> Iterator[Frame]:
        """All that is open ends."""
        yield from self._below.close()
        yield from self._write.end()
        for key in reversed(list(self._steps)):
            yield event("STEP_FINISHED", stepName=self._steps.pop(key))
