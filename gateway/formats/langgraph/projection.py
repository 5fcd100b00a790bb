"""LangGraph runs: the events of a stream as `langgraph-sdk` and `@langchain/langgraph-sdk` read a run's.

A run is a stream, and its id the stream's. A graph whose steps stand in the log is told by these
(`graph_frames.py`). Of any other chain the state is what the client gave, with `messages`, and at the end the
answer among them. A message's id is the run's and its first event's, so it is the same in every
connection; what is said anew after a reset is another message, and `values` takes away what is void.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.formats.base.projection import Frame, Projection
from gateway.formats.langgraph.graph_frames import COMPLETE, METADATA, PARTIAL, TUPLES, UP, GraphFrames
from gateway.protocol import Cursor, Event, EventType, Status, sse
from gateway.protocol.fold import StageText

# By a run's `stream_mode`: the frames' `event`s.
EVENTS_OF_MODE = {
    "values": ("values",),
    "updates": ("updates",),
    "messages-tuple": (TUPLES,),
    "messages": (METADATA, PARTIAL, COMPLETE),
    "custom": ("custom",),
}
_ALWAYS = frozenset({"metadata", "error", "end"})
RUN_STATUS = {
    Status.QUEUED: "pending",
    Status.RUNNING: "running",
    Status.DONE: "success",
    Status.FAILED: "error",
    Status.CANCELLED: "interrupted",
}
CANCELLED = {"error": "UserInterrupt", "message": "The run was cancelled."}
_STREAM_WRITER = "custom"  # the name of what a graph's own stream writer has written
_RESULT = "result"  # the name of a stage's JSON value


@dataclass(slots=True)
class Said:
    """One message of the run; `offset` is where its first event stands in the log."""

    offset: int
    message: dict[str, Any]
    stage: StageText | None = None  # whose text is its content
    refusal: list[str] = field(default_factory=list)  # what of that are the words by which a model refuses

    def whole(self) -> dict[str, Any]:
        """The message as it stands."""
        refused = {"additional_kwargs": {"refusal": "".join(self.refusal)}} if self.refusal else {}
        return self.message if self.stage is None else self.message | {"content": self.stage.text} | refused


class Run(Projection):
    """One run's frames, of the modes that were asked for.

    `given`: the state that it begins with, its `messages` with ids.
    """

    ids = True

    def __init__(
        self,
        run_id: str,
        thread_id: str,
        given: Mapping[str, Any],
        modes: Sequence[str] = (),
        *,
        subgraphs: bool = False,
    ) -> None:
        super().__init__()
        self._run_id = run_id
        self._thread_id = thread_id
        self._given = given
        self._wanted = _ALWAYS | {event for mode in modes for event in EVENTS_OF_MODE[mode]}
        self._subgraphs = subgraphs
        self._event = Event(EventType.START, {})  # the one that is being fed
        self._chain = ""
        self._has_begun = False
        self.graph_frames: GraphFrames | None = None  # of a graph whose steps stand in the log
        self._said: dict[str, Said] = {}  # by message id, in order
        self._texts: dict[tuple[str, int, str, str], str] = {}  # the message of a stage's text
        self._result: dict[str, Any] = {}
        self._ended: Mapping[str, Any] = {}  # the terminal event's data
        self.attempt = 1

    def wants(self, frame: Frame) -> bool:
        """Whether its mode was asked for, and subgraphs where it is of one."""
        mode, _, ns = frame.event.partition("|")
        return mode in self._wanted and (not ns or self._subgraphs)

    def _for_me(self, frames: list[Frame]) -> list[Frame]:
        """These frames, with a name of their own for those that are for who asks for no subgraphs."""
        if not any(frame.event.endswith(UP) for frame in frames):
            return frames
        name = "" if self._subgraphs else UP
        return [
            Frame(one.data, one.event.removesuffix(name)) if name and one.event.endswith(UP) else one
            for one in frames
        ]

    def feed(self, event_id: str, event: Event) -> list[Frame]:
        """The frames of the next event; what is said below a tool is the message of a graph, too."""
        self._event = event
        frames = super().feed(event_id, event)
        if event.type is EventType.NESTED and self.graph_frames is not None:
            frames += self.graph_frames.text(event.data)
        return self._for_me(frames)

    def values(self) -> Any:
        """The run's state: a graph's own; else what was given and, when the run is done, its answer."""
        if self.graph_frames is not None:
            return self.graph_frames.values(self._ended.get("interrupts"))
        state = {**self._given, **self._result} if self.fold.ended is Status.DONE else dict(self._given)
        answer = self._answer() if self.fold.ended is Status.DONE else None
        state["messages"] = [*self._given.get("messages", ()), *((answer,) if answer else ())]
        if interrupts := self._ended.get("interrupts"):
            state["__interrupt__"] = interrupts
        return state

    def outcome(self) -> Any:
        """What `wait` and `join` answer: the state, or the error, as the SDKs look for it."""
        if self.fold.ended is Status.DONE:
            return self.values()
        return {"__error__": self._error()}

    def start(self, data: Any) -> Iterable[Frame]:
        """The run."""
        self._chain = data["chain"]
        yield Frame({"run_id": self._run_id, "attempt": self.attempt}, "metadata")

    def text(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """A chunk of the stage's message."""
        if self.graph_frames is not None:
            return self.graph_frames.text(self._event.data)
        return self._chunk(stage, delta, is_refusal=False)

    def refusal(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """A chunk too, which is marked as LangChain marks a refusal."""
        if self.graph_frames is not None:
            return self.graph_frames.text(self._event.data, refused=True)
        return self._chunk(stage, delta, is_refusal=True)

    def citations(self, data: Any) -> Iterable[Frame]:
        """By their name, beside the text."""
        told = {"name": "citations", "stage": data["stage"], "data": data["citations"]}
        yield Frame(told, "custom")

    def _chunk(self, stage: StageText, delta: str, *, is_refusal: bool) -> Iterable[Frame]:
        key = _key(stage)
        if key not in self._texts:
            self._texts[key] = self._say("ai", "", name=stage.name)
            self._said[self._texts[key]].stage = stage
        said = self._said[self._texts[key]]
        chunk = said.message | {"content": delta, "type": "AIMessageChunk", "tool_call_chunks": []}
        if is_refusal:
            said.refusal.append(delta)
            chunk["additional_kwargs"] = {"refusal": delta}
        yield self._message(chunk, stage.name)

    def stage(self, data: Any) -> Iterable[Frame]:
        """The state that the run begins with; a stage that is at its end has updated it with what it said.

        A graph tells its steps itself.
        """
        if data["state"] == "started" and data.get("graph"):
            about = {
                "run_id": self._run_id,
                "thread_id": self._thread_id,
                "graph_id": self._chain,
                "assistant_id": self._chain,
            }
            self.graph_frames = GraphFrames(about, self._wanted.__contains__)
        if self.graph_frames is not None:
            return
        if not self._has_begun:
            self._has_begun = True
            yield Frame(self.values(), "values")
        if data["state"] != "finished":
            return
        named = data["name"], data["run"], data.get("parent", "")
        texts = [self._said[one].whole() for key, one in self._texts.items() if key[:3] == named]
        yield Frame({data["name"]: {"messages": texts}}, "updates")

    def tool(self, data: Any) -> Iterable[Frame]:
        """A model's message that calls a tool, and the tool's; a graph's own messages say that."""
        if self.graph_frames is not None:
            return
        call, said = data["call_id"], data.get("input", data.get("output"))
        if data["state"] == "started":
            arguments = said if isinstance(said, dict) else {"input": said}
            calls = [{"name": data["name"], "args": arguments, "id": call, "type": "tool_call"}]
            message_id = self._say("ai", "", tool_calls=calls)
        else:
            status = "success" if data["state"] == "finished" else "error"
            content = said if isinstance(said, str) else sse.dumps(said).decode()
            message_id = self._say("tool", content, tool_call_id=call, name=data["name"], status=status)
        yield self._message(self._said[message_id].message, data["stage"])

    def custom(self, data: Any) -> Iterable[Frame]:
        """What a graph's stream writer wrote is given bare, as LangGraph does; all else with its name."""
        if self.graph_frames is not None:
            yield from self.graph_frames.written(data)
            return
        if data["name"] == _RESULT:
            result = data["data"]
            whole = result if isinstance(result, Mapping) else {}
            self._result = {name: value for name, value in whole.items() if name != "messages"}
            self._result[_RESULT] = result
        bare = data["name"] == _STREAM_WRITER
        told = {"name": data["name"], "stage": data["stage"], "data": data["data"]}
        yield Frame(data["data"] if bare else told, "custom")

    def graph(self, data: Any) -> Iterable[Frame]:
        """A step of the graph."""
        return () if self.graph_frames is None else self.graph_frames.step(data)

    def reset(self, data: Any) -> Iterable[Frame]:
        """The state with the messages that still stand; all since the stage began do not.

        Of a graph nothing stands, and it begins anew with its state.
        """
        self.attempt = data["attempt"]
        if self.graph_frames is not None:
            self.graph_frames.forget()
            return
        since = Cursor.parse(data["discard_after"]).offset
        self._said = {key: said for key, said in self._said.items() if said.offset < since}
        self._texts = {key: message for key, message in self._texts.items() if message in self._said}
        standing = [*self._given.get("messages", ()), *(said.whole() for said in self._said.values())]
        yield Frame({**self._given, "messages": standing}, "values")

    def done(self, data: Any) -> Iterable[Frame]:
        """The state at the end, or what the graph asks."""
        self._ended = data
        if self.graph_frames is None:
            yield Frame(self.values(), "values")
        elif interrupts := data.get("interrupts"):
            yield from self.graph_frames.asked(interrupts)
        yield Frame({}, "end")  # clients look into the data of every event

    def failed(self, data: Any) -> Iterable[Frame]:
        """Why."""
        self._ended = data
        yield Frame(self._error(), "error")

    def cancelled(self) -> Iterable[Frame]:
        """As LangGraph tells it."""
        yield Frame(self._error(), "error")

    def _answer(self) -> dict[str, Any] | None:
        """The message that the status document's `text` is, with the calls that are left to the client."""
        speaker = self.fold.speaker
        message_id = self._texts.get(_key(speaker)) if speaker is not None else None
        answer = self._said[message_id].whole() if message_id is not None else None
        if not self.for_client:
            return answer
        asked = {call.offset for call in self.for_client}
        calls = [said.message for said in self._said.values() if said.offset in asked]
        return (answer or calls[0]) | {"tool_calls": [one for said in calls for one in said["tool_calls"]]}

    def _error(self) -> dict[str, Any]:
        if self.fold.ended is Status.CANCELLED:
            return CANCELLED
        return {"error": self._ended["code"], "message": self._ended["message"]}

    def _say(self, kind: str, content: str, **more: Any) -> str:
        """A message that begins with this event; its id."""
        message_id = f"{self._run_id}:{self.cursor}"
        whole = message(kind, content, message_id, **more)
        self._said[message_id] = Said(Cursor.parse(self.cursor).offset, whole)
        return message_id

    def _message(self, whole: Mapping[str, Any], node: str) -> Frame:
        about = {"run_id": self._run_id, "thread_id": self._thread_id, "langgraph_node": node}
        return Frame([whole, about], "messages")


def message(kind: str, content: Any, message_id: str, **more: Any) -> dict[str, Any]:
    """A message as LangChain writes it."""
    told = {"content": content, "additional_kwargs": {}, "response_metadata": {}, "type": kind}
    own: dict[str, Any] = (
        {"tool_calls": [], "invalid_tool_calls": [], "usage_metadata": None} if kind == "ai" else {}
    )
    return {**told, "name": None, "id": message_id, **own, **more}


def _key(stage: StageText) -> tuple[str, int, str, str]:
    return stage.name, stage.run, stage.parent, stage.started_id
