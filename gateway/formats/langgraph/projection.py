"""Makes a LangGraph run's frames from a stream, as `langgraph-sdk` and `@langchain/langgraph-sdk` read them.

A run is a stream, and the run's id is the stream's id. If the log contains a graph's steps, the frames are
made from these steps (`graph_frames.py`). For any other chain the state is the client's input, with its
`messages`; at the end the answer is added to these messages. A message's id consists of the run's id and the
id of the message's first event, so the id is the same in every connection. Text that is written again after
a reset is a new message, and a `values` frame without the void messages removes them at the client.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.formats.base.projection import Frame, Projection
from gateway.formats.langgraph.graph_frames import COMPLETE, METADATA, PARTIAL, TUPLES, UP, GraphFrames
from gateway.protocol import Cursor, Event, EventType, Status, sse
from gateway.protocol.fold import StageText

# For each `stream_mode` of a run: the names (`event`) of the frames of this mode.
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
_STREAM_WRITER = "custom"  # the name of the events that a graph writes with LangGraph's stream writer
_RESULT = "result"  # the name of the `custom` event with a stage's JSON result


@dataclass(slots=True)
class Said:
    """One message of the run. `offset` is the offset of the message's first event in the log."""

    offset: int
    message: dict[str, Any]
    stage: StageText | None = None  # the stage whose text is the message's content
    refusal: list[str] = field(default_factory=list)  # the parts of the content that are a model's refusal

    def whole(self) -> dict[str, Any]:
        """Return the message with all of its text so far."""
        refused = {"additional_kwargs": {"refusal": "".join(self.refusal)}} if self.refusal else {}
        return self.message if self.stage is None else self.message | {"content": self.stage.text} | refused


class Run(Projection):
    """Makes the frames of one run, for the modes that the reader asked for.

    `given` is the state at the run's start; each of its `messages` has an id.
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
        self._modes = modes
        self._wanted = _ALWAYS | {event for mode in modes for event in EVENTS_OF_MODE[mode]}
        self._subgraphs = subgraphs
        self._event = Event(EventType.START, {})  # the event that is being processed
        self._chain = ""
        self._has_begun = False
        self.graph_frames: GraphFrames | None = None  # set if the log contains a graph's steps
        self._said: dict[str, Said] = {}  # the messages by id, in the order of the log
        # For each run of a stage (`_key`): the id of the message that has the stage's text.
        self._texts: dict[tuple[str, int, str, str], str] = {}
        self._result: dict[str, Any] = {}
        self._ended: Mapping[str, Any] = {}  # the terminal event's data
        self.attempt = 1

    def wants(self, frame: Frame) -> bool:
        """Return whether the reader asked for the frame's mode and, if a subgraph made it, for subgraphs."""
        mode, _, ns = frame.event.partition("|")
        return mode in self._wanted and (not ns or self._subgraphs)

    def shared_as(self) -> Hashable:
        """Return the thread, and for which modes the frames' data depends on what the reader asked for."""
        return self._thread_id, self._subgraphs, "values" in self._wanted, PARTIAL in self._wanted

    def unfed(self) -> Run:
        """Return a new projection of the same run. It has the same `given`, which no projection changes."""
        return Run(self._run_id, self._thread_id, self._given, self._modes, subgraphs=self._subgraphs)

    def _for_me(self, frames: list[Frame]) -> list[Frame]:
        """Return these frames under the names that this reader gets.

        For a reader without subgraphs the suffix `UP` is removed. For any other reader the suffix stays, and
        `wants` then refuses the frame.
        """
        if not any(frame.event.endswith(UP) for frame in frames):
            return frames
        name = "" if self._subgraphs else UP
        return [
            Frame(one.data, one.event.removesuffix(name)) if name and one.event.endswith(UP) else one
            for one in frames
        ]

    def feed(self, event_id: str, event: Event) -> list[Frame]:
        """Return the frames of the next event.

        In a graph, text that is written inside a tool call is also part of a message.
        """
        self._event = event
        frames = super().feed(event_id, event)
        if event.type is EventType.NESTED and self.graph_frames is not None:
            frames += self.graph_frames.text(event.data)
        return self._for_me(frames)

    def values(self) -> Any:
        """Return the run's state.

        A graph has its own state. For any other chain it is the given state and, when the run is done, the
        answer.
        """
        if self.graph_frames is not None:
            return self.graph_frames.values(self._ended.get("interrupts"))
        state = {**self._given, **self._result} if self.fold.ended is Status.DONE else dict(self._given)
        answer = self._answer() if self.fold.ended is Status.DONE else None
        state["messages"] = [*self._given.get("messages", ()), *((answer,) if answer else ())]
        if interrupts := self._ended.get("interrupts"):
            state["__interrupt__"] = interrupts
        return state

    def outcome(self) -> Any:
        """Return the body of the answers to `wait` and `join`: the state, or the error under `__error__`."""
        if self.fold.ended is Status.DONE:
            return self.values()
        return {"__error__": self._error()}

    def start(self, data: Any) -> Iterable[Frame]:
        """Make the first frame, with the run's id and attempt."""
        self._chain = data["chain"]
        yield Frame({"run_id": self._run_id, "attempt": self.attempt}, "metadata")

    def text(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """Make the frame of a piece of the stage's message."""
        if self.graph_frames is not None:
            return self.graph_frames.text(self._event.data)
        return self._chunk(stage, delta, is_refusal=False)

    def refusal(self, stage: StageText, delta: str) -> Iterable[Frame]:
        """Make the frame of a piece of a refusal, marked in the way that LangChain marks a refusal."""
        if self.graph_frames is not None:
            return self.graph_frames.text(self._event.data, refused=True)
        return self._chunk(stage, delta, is_refusal=True)

    def citations(self, data: Any) -> Iterable[Frame]:
        """Make a `custom` frame named `citations`, separate from the text."""
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
        """Make the frames of a stage's start or end.

        When the first stage starts, the frame has the state at the run's start. When a stage ends, an
        `updates` frame has the stage's messages. A graph makes no frames here: its `graph` events do.
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
        """Make the frame of a `custom` event.

        Data that a graph wrote with the stream writer is sent unchanged, as LangGraph does. Any other event
        is sent with its name and stage.
        """
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
        """Make the frames of a step of the graph."""
        return () if self.graph_frames is None else self.graph_frames.step(data)

    def reset(self, data: Any) -> Iterable[Frame]:
        """Make a frame with the state without the void messages: those since the stage began.

        For a graph all events so far are void. The graph sends its state again, so there is no frame here.
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
        """Make the frames of the run's end: the state, or the questions that a graph asks."""
        self._ended = data
        if self.graph_frames is None:
            yield Frame(self.values(), "values")
        elif interrupts := data.get("interrupts"):
            yield from self.graph_frames.asked(interrupts)
        yield Frame({}, "end")  # `{}`, because clients parse the data of every event

    def failed(self, data: Any) -> Iterable[Frame]:
        """Make the frame with the error of a failed run."""
        self._ended = data
        yield Frame(self._error(), "error")

    def cancelled(self) -> Iterable[Frame]:
        """Make the error frame that LangGraph's server sends for a cancelled run."""
        yield Frame(self._error(), "error")

    def _answer(self) -> dict[str, Any] | None:
        """Return the answer's message: its text is the `text` of the status document.

        Tool calls that the client must run are added to the message.
        """
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
        """Store a new message that begins with this event, and return the message's id."""
        message_id = f"{self._run_id}:{self.cursor}"
        whole = message(kind, content, message_id, **more)
        self._said[message_id] = Said(Cursor.parse(self.cursor).offset, whole)
        return message_id

    def _message(self, whole: Mapping[str, Any], node: str) -> Frame:
        about = {"run_id": self._run_id, "thread_id": self._thread_id, "langgraph_node": node}
        return Frame([whole, about], "messages")


def message(kind: str, content: Any, message_id: str, **more: Any) -> dict[str, Any]:
    """Return a message in LangChain's JSON form."""
    told = {"content": content, "additional_kwargs": {}, "response_metadata": {}, "type": kind}
    own: dict[str, Any] = (
        {"tool_calls": [], "invalid_tool_calls": [], "usage_metadata": None} if kind == "ai" else {}
    )
    return {**told, "name": None, "id": message_id, **own, **more}


def _key(stage: StageText) -> tuple[str, int, str, str]:
    return stage.name, stage.run, stage.parent, stage.started_id
