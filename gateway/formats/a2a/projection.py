"""A2A 1.0's events of a task as a projection of the log, and the task as it stands.

The answer is one artifact, to which text is appended. A task that was asked something in the middle goes on
as another stream (a leg of it): each leg has an artifact of its own, and all tell of the same task.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.formats.base.answer_text import Piece
from gateway.formats.base.projection import Frame
from gateway.formats.base.spoken import Spoken
from gateway.protocol import Cursor

SUBMITTED, WORKING, COMPLETED, FAILED, CANCELED, ASKS = (
    f"TASK_STATE_{name}"
    for name in ("SUBMITTED", "WORKING", "COMPLETED", "FAILED", "CANCELED", "INPUT_REQUIRED")
)
JSON = "application/json"


@dataclass
class TaskEvents(Spoken):
    """The events of one leg. `task`: the task's id; `context`: its context's."""

    ids = True
    task: str = ""
    context: str = ""
    leg: str = ""
    status: dict[str, Any] = field(default_factory=lambda: {"state": SUBMITTED}, init=False)
    _said: list[tuple[int, dict[str, Any]]] = field(default_factory=list, init=False)  # parts, with offsets
    _more: list[dict[str, Any]] = field(default_factory=list, init=False)  # artifacts beside the answer

    def __post_init__(self) -> None:
        self.id_before = f"{self.leg}."

    def shared_as(self) -> Hashable:
        """What its frames name."""
        return self.task, self.context

    def artifacts(self) -> list[dict[str, Any]]:
        """What this leg has made so far; neighbouring texts are one part."""
        parts: list[dict[str, Any]] = []
        texts: list[str] = []
        for _, part in self._said:
            if "text" in part:
                texts.append(part["text"])
                continue
            parts += _joined(texts)
            texts = []
            parts.append(part)
        parts += _joined(texts)
        own = [{"artifactId": self.leg, "name": "answer", "parts": parts}] if parts else []
        return [*own, *self._more]

    def start(self, data: Any) -> Iterator[Frame]:
        """The task is there; a later leg is no other task."""
        self.status = {"state": SUBMITTED, "timestamp": data["created_at"]}
        if self.leg != self.task:
            yield self._stands()
        else:
            yield Frame({"task": {"id": self.task, "contextId": self.context, "status": self.status}})

    def stage(self, data: Any) -> Iterator[Frame]:
        """The chain is at work; a graph's nodes are its own matter."""
        if "parent" not in data and data["state"] == "started":
            self.status = {"state": WORKING}
            yield self._stands({"stage": {name: data[name] for name in ("name", "run", "index", "count")}})
        yield from super().stage(data)

    def said(self, told: Piece) -> Iterator[Frame]:
        """A piece of the answer: text, or a result that is JSON. What is cited has no place here."""
        if not told.text:
            return
        part: dict[str, Any] = {"text": told.text}
        if told.stage is None:
            part = {"data": json.loads(told.text), "mediaType": JSON}
        is_first = not self._said
        self._said.append((Cursor.parse(self.cursor).offset, part))
        yield self._made(part, append=not is_first)

    def reset(self, data: Any) -> Iterable[Frame]:
        """The artifact is what is left of it."""
        yield from super().reset(data)
        since, before = Cursor.parse(data["discard_after"]).offset, len(self._said)
        self._said = [one for one in self._said if one[0] <= since]
        if len(self._said) < before:
            left = self.artifacts()
            yield self._made(*(left[0]["parts"] if left else [{"text": ""}]))

    def done(self, data: Any) -> Iterator[Frame]:
        """The artifact is whole; the task is, or asks."""
        yield from super().done(data)
        if self._said:
            yield self._made({"text": ""}, append=True, last=True)
        if self.for_client:
            calls = [{"id": one.call_id, "name": one.name, "input": one.input} for one in self.for_client]
            parts = [{"data": {"tool_calls": calls}, "mediaType": JSON}]
            self._more.append({"artifactId": f"{self.leg}.calls", "name": "tool_calls", "parts": parts})
            yield self._update("artifactUpdate", {"artifact": self._more[-1], "lastChunk": True})
        self.status = {"state": COMPLETED}
        if (questions := data.get("interrupts")) or "next" in data:
            self.status = {"state": ASKS, "message": self._message(_asked(questions or ()))}
        yield self._stands({name: data[name] for name in ("finish_reason", "usage") if name in data})

    def failed(self, data: Any) -> Iterator[Frame]:
        """With our own words, and our code."""
        self.status = {"state": FAILED, "message": self._message([{"text": data["message"]}])}
        yield self._stands({name: data[name] for name in ("code", "retryable")})

    def cancelled(self) -> Iterator[Frame]:
        """Somebody wished it."""
        self.status = {"state": CANCELED}
        yield self._stands()

    def _made(self, *parts: Mapping[str, Any], append: bool = False, last: bool = False) -> Frame:
        """The artifact anew, or more of it."""
        told = {"artifact": {"artifactId": self.leg, "name": "answer", "parts": list(parts)}}
        return self._update("artifactUpdate", told | {"append": append, "lastChunk": last})

    def _stands(self, known: Mapping[str, Any] | None = None) -> Frame:
        return self._update("statusUpdate", {"status": self.status} | ({"metadata": known} if known else {}))

    def _update(self, kind: str, told: Mapping[str, Any]) -> Frame:
        return Frame({kind: {"taskId": self.task, "contextId": self.context, **told}})

    def _message(self, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "messageId": f"{self.leg}.{self.cursor}",
            "taskId": self.task,
            "contextId": self.context,
            "role": "ROLE_AGENT",
            "parts": list(parts),
        }


def _asked(questions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each question as a part, and its id beside it."""
    told: list[dict[str, Any]] = []
    for one in questions:
        value = one.get("value")
        part: dict[str, Any] = {"text": value} if isinstance(value, str) else {"data": value}
        known = {name: one[name] for name in one if name != "value"}
        told.append(part | {"metadata": {"interrupt": known}})
    return told or [{"text": ""}]


def _joined(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"text": "".join(texts)}] if texts else []
