"""Messages as the agent streaming protocol says them: a start, blocks of content in a row, a finish.

Each event of a message names it, so that clients can tell messages apart that are said at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.formats.langgraph import protocol_values
from gateway.protocol import sse

Said = dict[str, Any]
_ROLES = {"ai": "ai", "AIMessageChunk": "ai", "human": "human", "system": "system", "tool": "tool"}
_TEXT, _REASONING = "text", "reasoning"


class Message:
    """One message that is being said."""

    def __init__(self, message_id: str, namespace: tuple[str, ...], node: str) -> None:
        self.id = message_id
        self.namespace = namespace
        self.node = node
        self._block = ""  # the kind of the block that is open
        self._index = -1
        self._pieces: list[str] = []  # of that block
        self.has_text = False

    def start(self, role: str = "ai", **more: Any) -> Said:
        """It begins."""
        return {"event": "message-start", "role": role, "id": self.id, "run_id": self.id, **more}

    def text(self, delta: str, kind: str = _TEXT) -> Iterator[Said]:
        """A piece of its text, or of its reasoning."""
        if self._block != kind:
            yield from self._close()
            self._block, self._index = kind, self._index + 1
            yield self._told("content-block-start", content={"type": kind, kind: ""})
        self._pieces.append(delta)
        self.has_text = self.has_text or kind == _TEXT
        yield self._told("content-block-delta", delta={"type": f"{kind}-delta", kind: delta})

    def calls(self, calls: Any) -> Iterator[Said]:
        """The tool calls that it has asked for."""
        yield from self._close()
        for call in calls or ():
            whole = protocol_values.call_of(call)
            self._index += 1
            begun = {"type": "tool_call_chunk", "id": whole["id"], "name": whole["name"], "args": ""}
            yield self._told("content-block-start", content=begun | {"index": self._index})
            spelled = sse.dumps(whole["args"]).decode()
            yield self._told("content-block-delta", delta={"type": "tool-call-delta", "args": spelled})
            yield self._told("content-block-finish", content=whole)

    def finish(self, whole: Mapping[str, Any] | None = None) -> Iterator[Said]:
        """It is whole; `whole`, where it is known, says what it has beside its text."""
        whole = whole or {}
        yield from self.calls(whole.get("tool_calls"))
        end: Said = {"event": "message-finish", "run_id": self.id, "message_id": self.id}
        if usage := whole.get("usage_metadata"):
            end["usage"] = usage
        yield end | {"metadata": whole.get("response_metadata") or {}}

    def broken(self, why: str) -> Said:
        """Nothing more comes of it."""
        return {"event": "error", "message": why, "run_id": self.id, "message_id": self.id}

    def _close(self) -> Iterator[Said]:
        if self._block:
            text, kind = "".join(self._pieces), self._block
            self._block, self._pieces = "", []
            yield self._told("content-block-finish", content={"type": kind, kind: text})

    def _told(self, event: str, **more: Any) -> Said:
        return {"event": event, "index": self._index, "run_id": self.id, "message_id": self.id, **more}


def role_of(message: Mapping[str, Any]) -> str:
    """By its type; empty for one that no channel has."""
    return _ROLES.get(str(message.get("type")), "")


def text_of(message: Mapping[str, Any]) -> str:
    """Its text, however it is written."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    parts = (one if isinstance(one, str) else one.get("text", "") for one in content if one)
    return "".join(part for part in parts if isinstance(part, str))


def of_tool(call_id: str, message_id: str, text: str) -> Iterator[Said]:
    """What a tool has answered, as a message of its own."""
    block = {"type": "text", "text": text}
    start = {"event": "message-start", "role": "tool", "id": message_id, "tool_call_id": call_id}
    yield start
    yield {"event": "content-block-start", "index": 0, "content": {"type": "text", "text": ""}}
    yield {"event": "content-block-delta", "index": 0, "content": block}
    yield {"event": "content-block-finish", "index": 0, "content": block}
    yield {"event": "message-finish", "metadata": {}}
