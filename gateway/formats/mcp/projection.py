"""A tool's call as a projection of the log: notifications of its progress, and its result."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gateway.formats.base.answer_text import Piece
from gateway.formats.base.projection import Frame
from gateway.formats.base.spoken import Spoken
from gateway.formats.mcp.versions import complete
from gateway.protocol import Cursor

STREAM = "holdfast/stream"  # in a result's `_meta`: where it is, in our own format
CANCELLED = "The call was cancelled."
ASKS = "The tool asks, and goes on when its stream is answered (POST /stream/{id}/resume)."


@dataclass
class Progress(Spoken):
    """`call`: the id of the call; `token`: of its notifications, None where none are wanted."""

    ids = True
    stream: str = ""
    call: str | int | None = None
    token: str | int | None = None
    version: str = ""
    result: dict[str, Any] = field(default_factory=dict, init=False)  # at the end
    _told: int = field(default=0, init=False)  # notifications
    _said: list[tuple[int, Piece]] = field(default_factory=list, init=False)  # with their offsets

    def __post_init__(self) -> None:
        self.id_before = f"{self.stream}."

    def shared_as(self) -> Hashable:
        """What its messages name, and as which version has them."""
        return self.call, self.token, self.version

    def start(self, data: Any) -> Iterator[Frame]:
        """An event without data: its id is where a client comes back to."""
        yield Frame(b"")

    def stage(self, data: Any) -> Iterator[Frame]:
        """A chain's stage begins."""
        if "parent" not in data and data["state"] == "started":
            yield from self._note(data["name"])
        yield from super().stage(data)

    def said(self, told: Piece) -> Iterable[Frame]:
        """A piece of the answer."""
        if told.text:
            self._said.append((Cursor.parse(self.cursor).offset, told))
            yield from self._note(told.text)

    def reset(self, data: Any) -> Iterable[Frame]:
        """What was said is void; the result is right in any case."""
        yield from super().reset(data)
        since = Cursor.parse(data["discard_after"]).offset
        self._said = [one for one in self._said if one[0] <= since]
        yield from self._note(f"{data['stage']} begins anew")

    def done(self, data: Any) -> Iterator[Frame]:
        """The result: text, and what is JSON as such, too."""
        yield from super().done(data)
        said = "".join(told.text for _, told in self._said)
        structured = [json.loads(told.text) for _, told in self._said if told.stage is None]
        content = [{"type": "text", "text": said}]
        if questions := data.get("interrupts"):
            asked = {"interrupts": questions, "stream": self.stream}
            content.append({"type": "text", "text": f"{ASKS} {json.dumps(asked, ensure_ascii=False)}"})
            structured = [asked]
        more = (
            {"structuredContent": structured[-1]} if structured and isinstance(structured[-1], dict) else {}
        )
        if self.for_client:
            calls = [{"id": one.call_id, "name": one.name, "input": one.input} for one in self.for_client]
            more = {"structuredContent": {"tool_calls": calls}}
        yield self._end({"content": content, **more, "isError": bool(questions)})

    def failed(self, data: Any) -> Iterator[Frame]:
        """A failure is a result, too: the model that has called is to read it."""
        text = f"{data['message']} ({data['code']})"
        yield self._end({"content": [{"type": "text", "text": text}], "isError": True})

    def cancelled(self) -> Iterator[Frame]:
        """Likewise; who has cancelled by MCP does not look."""
        yield self._end({"content": [{"type": "text", "text": CANCELLED}], "isError": True})

    def _note(self, message: str) -> Iterator[Frame]:
        if self.token is None:
            return
        self._told += 1
        params = {"progressToken": self.token, "progress": self._told, "message": message}
        yield Frame({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    def _end(self, value: dict[str, Any]) -> Frame:
        self.result = complete({**value, "_meta": {STREAM: self.stream}}, self.version)
        return Frame({"jsonrpc": "2.0", "id": self.call, "result": self.result})
