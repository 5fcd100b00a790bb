"""Emit a graph's own steps as events (`gateway/protocol/steps.py`), as LangGraph's server would show them.

They are written only if the run was requested in LangGraph's format. LangGraph passes on what its modes
`updates` and `values` show, also for subgraphs, at the moment when it happens. So these events come between
the events of the nodes, in the same place in each attempt. A message is emitted once. A state is emitted as
its changes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from threading import RLock
from typing import Any

from langchain_core.messages import BaseMessage

from gateway.protocol import Event, EventType, sse, steps
from workers.langchain.stage import Stage
from workers.langchain.values import CUT, DEEPEST, clean, plain

INTERRUPT = "__interrupt__"
_MODES = (steps.UPDATES, steps.VALUES)
_ROOM_BYTES = 2048  # bytes kept free for the rest of an event
_LARGEST_OF_A_CHARACTER = 8  # the most bytes of a character in JSON within JSON


class Steps:
    """The steps of one stage's graph. `standing` are the events of earlier attempts that stay valid.

    `send` emits an event. `place` returns the stage of the node at the root of a path; the path is empty for
    the graph itself. Any thread may call this object.
    """

    def __init__(
        self,
        stage: Stage,
        standing: Sequence[Event],
        send: Callable[[Event], None],
        place: Callable[[str], Stage],
    ) -> None:
        self._stage = stage
        self._send = send
        self._place = place
        self._book = steps.Book()
        self._lock = RLock()
        self._spaces: dict[tuple[str, ...], str] = {}
        for event in standing:
            if event.type is EventType.GRAPH:
                self._book.feed(event.data)
                self._spaces.setdefault((event.data.get("ns", ""),), event.data.get("ns", ""))
        self._numbers = {said.id: number for number, said in self._book.messages.items()}
        self._last: dict[int, BaseMessage] = {}  # number -> the message object that was emitted

    def modes(self) -> set[str]:
        """Return the modes that LangGraph must report."""
        return set(_MODES)

    def take(self, chunk: Any) -> None:
        """Emit a report of LangGraph: a namespace, a mode, and data."""
        path, mode, data = chunk
        if isinstance(data, Mapping) and INTERRUPT in data:
            return  # the end of the stream has the questions
        with self._lock:
            ns, stage = self.space(path), self._place(path[0] if path else "")
            if mode == steps.VALUES:
                coded = self._coded(data, self._stage, DEEPEST)
                told = steps.changes(self._book.states.get(ns), coded)
                self._tell(steps.VALUES, self._stage, ns, changes=told)
            else:
                node = next((name for name in data if name != "__metadata__"), "") if data else ""
                stage = stage if path else self._place(str(node))
                self._tell(steps.UPDATES, stage, ns, data=self._coded(data, stage, DEEPEST))

    def begin(self, message: BaseMessage, stage: Stage, path: Sequence[str], about: Mapping[str, Any]) -> int:
        """Emit the start of a message, and return its number.

        The message's pieces of text have this number.
        """
        with self._lock:
            number = self._number_of(str(message.id))
            more = _about(about) | {"own": {"id": message.id}}
            self._tell(steps.MESSAGE, stage, self.space(path), number=number, state="started", **more)
            return number

    def end(self, message: BaseMessage, stage: Stage, path: Sequence[str], about: Mapping[str, Any]) -> int:
        """Emit a complete message of a model or a node that LangGraph shows. Return its number."""
        with self._lock:
            return self._message(message, stage, self.space(path), shown=True, **_about(about))

    def space(self, path: Sequence[str]) -> str:
        """Return a name for a LangGraph namespace that is the same in the next attempt."""
        known: list[str] = []
        for length in range(1, len(path) + 1):
            here = tuple(path[:length])
            if (name := self._spaces.get(here)) is None:
                node, marked, _ = path[length - 1].partition(":")
                name = f"{clean(node)}:{len(self._spaces) + 1}" if marked else clean(node)
                self._spaces[here] = name
            known.append(name)
        return "|".join(known)

    def _message(
        self, message: BaseMessage, stage: Stage, ns: str, *, shown: bool = False, **about: Any
    ) -> int:
        """Emit a message, unless it was already emitted in this form. Return its number."""
        number = self._number_of(str(message.id))
        said = self._book.messages.get(number)
        if self._last.get(number) is message and not shown:
            return number
        data = plain(message)
        if shown or said is None or said.whole is None or _told(data) != said.whole:
            told, own = steps.parted(data)
            more = about | ({"shown": True} if shown else {})
            parts = {"number": number, "state": "finished", "message": told, "own": own}
            self._tell(steps.MESSAGE, stage, ns, **parts, **more)
        self._last[number] = message
        return number

    def _number_of(self, message_id: str) -> int:
        return self._numbers.setdefault(message_id, len(self._numbers) + 1)

    def _coded(self, value: Any, stage: Stage, levels: int) -> Any:
        """Return a value as JSON. Its messages are emitted first and replaced by references."""
        if isinstance(value, BaseMessage):
            if not value.id:
                return plain(value)
            return {steps.REFERENCE: self._message(value, stage, "")}
        if levels == 0:
            return CUT
        if isinstance(value, Mapping):
            named = {_name(name): self._coded(item, stage, levels - 1) for name, item in value.items()}
            return steps.escaped(named)
        if isinstance(value, list | tuple):
            return [self._coded(item, stage, levels - 1) for item in value]
        if is_dataclass(value) and not isinstance(value, type):
            own = {field.name: getattr(value, field.name, None) for field in fields(value)}
            return self._coded(own, stage, levels - 1)
        return _escaped(plain(value, levels))

    def _tell(self, kind: str, stage: Stage, ns: str, **told: Any) -> None:
        event = steps.graph(kind, stage=stage.name, run=stage.run, ns=ns, **told)
        self._book.feed(event.data)
        for piece in self._pieces(event):
            self._send(piece)

    def _pieces(self, event: Event) -> Iterator[Event]:
        """Yield the event. If it is too long for one event, yield several that have the same content."""
        text = sse.dumps(event.data).decode()
        most = self._stage.max_event - _ROOM_BYTES
        if len(text.encode()) <= most:
            yield event
            return
        stage, run = event.data["stage"], event.data.get("run", 0)
        length = max(1, most // _LARGEST_OF_A_CHARACTER)
        for begin in range(0, len(text), length):
            kind = steps.PIECE if begin + length < len(text) else steps.LAST_PIECE
            yield steps.graph(kind, stage=stage, run=run, text=text[begin : begin + length])


def _about(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts for a reader about the node of a message."""
    node, step, tags = (metadata.get(name) for name in ("langgraph_node", "langgraph_step", "tags"))
    return {"node": clean(node or ""), "step": step or 0} | ({"tags": plain(tags)} if tags else {})


def _told(data: dict[str, Any]) -> dict[str, Any]:
    """Return a message as the book stores it."""
    told, own = steps.parted(data)
    return steps.whole(told, own, str(own["id"]))


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return steps.escaped({name: _escaped(item) for name, item in value.items()})
    return [_escaped(item) for item in value] if isinstance(value, list) else value


def _name(name: Any) -> str:
    return (
        name if type(name) is str else str(plain(name)) if isinstance(name, str) else json.dumps(plain(name))
    )
