"""Messages in the agent streaming protocol: a start event, blocks of content in order, a finish event.

Each event contains the message's id, because several messages can be sent at the same time.
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
    """One message that is being sent. Its methods return the message's next protocol events."""

    def __init__(self, message_id: str, namespace: tuple[str, ...], node: str) -> None:
        self.id = message_id
        self.namespace = namespace
        self.node = node
        self._block = ""  # the kind of the open block; empty: no block is open
        self._index = -1
        self._pieces: list[str] = []  # the open block's text so far
        self.has_text = False

    def start(self, role: str = "ai", **more: Any) -> Said:
        """Return the event that starts the message."""
        return {"event": "message-start", "role": role, "id": self.id, "run_id": self.id, **more}

    def text(self, delta: str, kind: str = _TEXT) -> Iterator[Said]:
        """Return the events of a piece of the message's text or, by `kind`, of its reasoning."""
        if self._block != kind:
            yield from self._close()
            self._block, self._index = kind, self._index + 1
            yield self._told("content-block-start", content={"type": kind, kind: ""})
        self._pieces.append(delta)
        self.has_text = self.has_text or kind == _TEXT
        yield self._told("content-block-delta", delta={"type": f"{kind}-delta", kind: delta})

    def calls(self, calls: Any) -> Iterator[Said]:
        """Return the events of the tool calls that the message contains."""
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
        """Return the events that end the message.

        `whole`, if known, has the message's tool calls and metadata.
        """
        whole = whole or {}
        yield from self.calls(whole.get("tool_calls"))
        end: Said = {"event": "message-finish", "run_id": self.id, "message_id": self.id}
        if usage := whole.get("usage_metadata"):
            end["usage"] = usage
        yield end | {"metadata": whole.get("response_metadata") or {}}

    def broken(self, why: str) -> Said:
        """Return the event that ends an incomplete message; `why` is the reason."""
        return {"event": "error", "message": why, "run_id": self.id, "message_id": self.id}

    def _close(self) -> Iterator[Said]:
        if self._block:
            text, kind = "".join(self._pieces), self._block
            self._block, self._pieces = "", []
            yield self._told("content-block-finish", content={"type": kind, kind: text})

    def _told(self, event: str, **more: Any) -> Said:
        return {"event": event, "index": self._index, "run_id": self.id, "message_id": self.id, **more}


def role_of(message: Mapping[str, Any]) -> str:
    """Return the message's role by its type; an empty string for a type that the protocol does not send."""
    return _ROLES.get(str(message.get("type")), "")


def text_of(message: Mapping[str, Any]) -> str:
    """Return the message's text: the content is a string, or a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    parts = (one if isinstance(one, str) else one.get("text", "") for one in content if one)
    return "".join(part for part in parts if isinstance(part, str))


def of_tool(call_id: str, message_id: str, text: str) -> Iterator[Said]:
    """Return the events of a separate message that has a tool's answer."""
    block = {"type": "text", "text": text}
    start = {"event": "message-start", "role": "tool", "id": message_id, "tool_call_id": call_id}
    yield start
    yield {"event": "content-block-start", "index": 0, "content": {"type": "text", "text": ""}}
    yield {"event": "content-block-delta", "index": 0, "content": block}
    yield {"event": "content-block-finish", "index": 0, "content": block}
    yield {"event": "message-finish", "metadata": {}}
