"""Makes frames from a graph's steps in the log (`protocol/steps.py`), in the form of LangGraph's server.

The name of a subgraph's frame contains the namespace: `updates|inner:1`. The data of a frame is computed only
if the reader asked for the frame's mode. A frame's place is the same for every reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.formats.base.projection import Frame
from gateway.protocol import sse, steps
from gateway.protocol.fold import StageText

TUPLES, METADATA, PARTIAL, COMPLETE = "messages", "messages/metadata", "messages/partial", "messages/complete"
_WRITTEN = "custom"  # the name of the events that a graph writes with LangGraph's stream writer
# A `messages/partial` frame has a message's whole text so far. After one such frame the next one is sent when
# the text has grown by 1/64.
_PARTS = 64
INTERRUPT = "__interrupt__"
# Suffix of a frame's name: the frame is only for readers that did not ask for subgraphs.
UP = "^"


@dataclass(slots=True)
class _Spoken:
    """A message that is still being written.

    `text` is the text so far, and `length` counts its characters. `told` is the value of `length` when the
    last `messages/partial` frame was made; -1 if none was made yet.
    """

    text: StageText = field(default_factory=lambda: StageText("", 0, ""))
    length: int = 0
    told: int = -1


class GraphFrames:
    """Makes one run's frames from the events of the run's log.

    `about` has the fields that every message's metadata contain. `wants` returns whether the reader asked for
    frames of this name.
    """

    def __init__(self, about: Mapping[str, Any], wants: Callable[[str], bool]) -> None:
        self.book = steps.Book()
        # Numbers of the subgraphs' messages that were sent to readers without subgraphs.
        self._shown: set[int] = set()
        self._about = about
        self._wants = wants
        self._spoken: dict[int, _Spoken] = {}

    def forget(self) -> None:
        """Forget all events so far: they are void."""
        self.book.forget()
        self._spoken.clear()
        self._shown.clear()

    def values(self, interrupts: Any = None) -> Any:
        """Return the graph's state after the events so far, with its open questions (`interrupts`)."""
        state = self.book.state()
        state = {} if state is None else state
        return {**state, INTERRUPT: interrupts} if interrupts and isinstance(state, dict) else state

    def step(self, data: Mapping[str, Any]) -> Iterable[Frame]:
        """Make the frames of the next `graph` event."""
        step = self.book.feed(data, reads=self._wants(steps.VALUES))
        if step is None:
            return
        if step.kind == steps.UPDATES and not step.ns:
            yield from self._handed_up(step)
        if step.kind != steps.MESSAGE:
            yield Frame(step.data, _named(step.kind, step.ns))
        elif step.about["state"] == "started":
            self._spoken[step.number] = _Spoken()
        elif step.about.get("shown"):
            yield from self._whole(step)

    def _handed_up(self, step: steps.GraphStep) -> Iterable[Frame]:
        """Make frames for the messages that a subgraph passes to its parent graph.

        They are for readers that did not ask for subgraphs. For these readers the messages belong to the
        parent graph's node that contains the subgraph.
        """
        for node, update in step.data.items() if isinstance(step.data, dict) else ():
            members = update.values() if isinstance(update, dict) else ()
            listed = [one for member in members if isinstance(member, list) for one in member]
            ids = {one.get("id") for one in listed if isinstance(one, dict) and "content" in one}
            if not ids:
                continue
            for number, said in self.book.messages.items():
                if (
                    said.id in ids
                    and said.about.get("ns")
                    and said.about.get("node")
                    and said.whole is not None
                ):
                    if number in self._shown:
                        continue
                    self._shown.add(number)
                    about = {**self._metadata(said), "langgraph_node": node, "langgraph_checkpoint_ns": node}
                    yield Frame([said.whole, about], f"{TUPLES}{UP}")
                    yield Frame({said.id: {"metadata": about}}, f"{METADATA}{UP}")
                    yield Frame([said.whole], f"{COMPLETE}{UP}")

    def text(self, data: Mapping[str, Any], *, refused: bool = False) -> Iterable[Frame]:
        """Make the frames of a piece of a message's text; no frames if the whole message was already sent."""
        number = data.get("number", 0)
        spoken, said = self._spoken.get(number), self.book.messages.get(number)
        if spoken is None or said is None or said.whole is not None:
            return
        delta = data.get("delta_content", data.get("delta"))
        if not isinstance(delta, str):
            return
        ns = said.about.get("ns", "")
        chunk = _chunk(said.id, delta)
        if refused:
            chunk["additional_kwargs"] = {"refusal": delta}
        yield Frame([chunk, self._metadata(said)], _named(TUPLES, ns))
        if spoken.told < 0:
            yield Frame({said.id: {"metadata": self._metadata(said)}}, _named(METADATA, ns))
        spoken.length += len(delta)
        is_wanted = self._wants(PARTIAL)
        if is_wanted:
            spoken.text.add(delta)
        if spoken.length - max(spoken.told, 0) >= max(1, spoken.length // _PARTS):
            spoken.told = spoken.length
            whole = [_message(said.id, spoken.text.text)] if is_wanted else None
            yield Frame(whole, _named(PARTIAL, ns))

    def written(self, data: Mapping[str, Any]) -> Iterable[Frame]:
        """Make the frame of a `custom` event.

        Data that a node wrote with the stream writer is sent unchanged. Any other event is sent with its name
        and stage. The events `result` and `reasoning` have no frame.
        """
        ns = data.get("ns", "")
        if data["name"] == _WRITTEN:
            yield Frame(data["data"], _named("custom", ns))
        elif data["name"] not in ("result", "reasoning"):
            told = {"name": data["name"], "stage": data["stage"], "data": data["data"]}
            yield Frame(told, _named("custom", ns))

    def asked(self, interrupts: Any) -> Iterable[Frame]:
        """Make the frames of the questions that the graph asks when it stops."""
        yield Frame({INTERRUPT: interrupts}, "updates")
        yield Frame(self.values(interrupts), "values")

    def _whole(self, step: steps.GraphStep) -> Iterable[Frame]:
        """Make the frames of a complete message.

        If the message came in pieces, the frames have its last chunk. Else they have the whole message.
        """
        said = self.book.messages[step.number]
        spoken, ns = self._spoken.pop(step.number, None), step.ns
        message: dict[str, Any] = step.data
        metadata = self._metadata(said)
        if spoken is None:
            yield Frame([message, metadata], _named(TUPLES, ns))
            yield Frame({said.id: {"metadata": metadata}}, _named(METADATA, ns))
            yield Frame([message], _named(COMPLETE, ns))
            return
        yield Frame([_last_chunk(message), metadata], _named(TUPLES, ns))
        if spoken.told < 0:
            yield Frame({said.id: {"metadata": metadata}}, _named(METADATA, ns))
        yield Frame([{**message, "type": "ai"}], _named(PARTIAL, ns))

    def _metadata(self, said: steps.Said) -> dict[str, Any]:
        node, ns = said.about.get("node", ""), said.about.get("ns", "")
        told = {
            **self._about,
            "langgraph_node": node,
            "langgraph_step": said.about.get("step", 0),
            "langgraph_checkpoint_ns": f"{ns}|{node}" if ns else node,
        }
        return told | ({"tags": said.about["tags"]} if "tags" in said.about else {})


def _named(mode: str, ns: str) -> str:
    return f"{mode}|{ns}" if ns else mode


def _message(message_id: str, text: str) -> dict[str, Any]:
    return {
        "content": text,
        "additional_kwargs": {},
        "response_metadata": {},
        "type": "ai",
        "name": None,
        "id": message_id,
        "tool_calls": [],
        "invalid_tool_calls": [],
        "usage_metadata": None,
    }


def _chunk(message_id: str, text: str) -> dict[str, Any]:
    return _message(message_id, text) | {"type": "AIMessageChunk", "tool_call_chunks": []}


def _last_chunk(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message's last chunk: all fields of the message except its text."""
    calls = message.get("tool_calls") or []
    pieces = [
        {
            "name": call.get("name"),
            "args": sse.dumps(call.get("args")).decode(),
            "id": call.get("id"),
            "index": index,
            "type": "tool_call_chunk",
        }
        for index, call in enumerate(calls)
    ]
    return {
        **_chunk(message["id"], ""),
        "name": message.get("name"),
        "additional_kwargs": message.get("additional_kwargs") or {},
        "response_metadata": message.get("response_metadata") or {},
        "tool_calls": calls,
        "invalid_tool_calls": message.get("invalid_tool_calls") or [],
        "tool_call_chunks": pieces,
        "usage_metadata": message.get("usage_metadata"),
        "chunk_position": "last",
    }
