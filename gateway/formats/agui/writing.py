"""AG-UI's messages while they are written: which are open, and the events that open, fill and end them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.formats.agui.said import Said
from gateway.formats.base.projection import Frame
from gateway.protocol import Cursor, sse

PROTOCOL = "1.0"
OURS = "holdfast"  # whose member of an event's metadata it is
TEXT, REASONING = "text", "reasoning"


def event(kind: str, **more: Any) -> Frame:
    """An event of AG-UI."""
    return Frame({"type": kind, **more})


def usage_of(usage: Mapping[str, int] | None) -> dict[str, Any]:
    """A run's tokens; nothing where the model has told none."""
    names = {"inputTokens": "input_tokens", "outputTokens": "output_tokens", "totalTokens": "total_tokens"}
    told = {name: usage[own] for name, own in names.items() if own in usage} if usage else {}
    return {"usage": [told]} if told else {}


class OpenMessages:
    """Of one run. A message is open for each kind and each speaker: a run of a stage, or a sub-agent."""

    def __init__(self, said: Said, stream_id: str) -> None:
        self._said = said
        self._stream = stream_id
        self._cursor = ""
        self._open: dict[tuple[str, str], tuple[str, str]] = {}  # the message's id, and its sub-agent
        self.last = ""  # the message that was written last

    def at(self, cursor: str) -> None:
        """Where in the log the frames that are made next belong."""
        self._cursor = cursor

    @property
    def offset(self) -> int:
        """The same, in bytes."""
        return Cursor.parse(self._cursor).offset

    def name(self, kind: str) -> str:
        """A name that no other message of any run has."""
        return f"{self._stream}-{self._cursor}-{kind}"

    def say(self, kind: str, speaker: str, delta: str, subagent: str = "") -> Iterator[Frame]:
        """A piece of a message, which begins here if it is not open."""
        of = {"subagentRunId": subagent} if subagent else {}
        if (kind, speaker) not in self._open:
            name = self.name("r" if kind == REASONING else "m")
            self._open[kind, speaker] = name, subagent
            self._said.begin(self.offset, name, "reasoning" if kind == REASONING else "assistant", **of)
            if kind == REASONING:
                yield event("REASONING_START", messageId=name, **of)
                yield event("REASONING_MESSAGE_START", messageId=name, role="reasoning", **of)
            else:
                yield event("TEXT_MESSAGE_START", messageId=name, role="assistant", **of)
        self.last, _ = self._open[kind, speaker]
        self._said.add(self.last, delta)
        content = "REASONING_MESSAGE_CONTENT" if kind == REASONING else "TEXT_MESSAGE_CONTENT"
        yield event(content, messageId=self.last, delta=delta, **of)

    def end(self, *speakers: str, kind: str = "") -> Iterator[Frame]:
        """End what these speakers write, or all do."""
        for which, speaker in list(self._open):
            if (speakers and speaker not in speakers) or kind not in ("", which):
                continue
            name, subagent = self._open.pop((which, speaker))
            of = {"subagentRunId": subagent} if subagent else {}
            if which == REASONING:
                yield event("REASONING_MESSAGE_END", messageId=name, **of)
                yield event("REASONING_END", messageId=name, **of)
            else:
                yield event("TEXT_MESSAGE_END", messageId=name, **of)

    def result(
        self, call_id: str, output: Any, metadata: Mapping[str, Any] | None, subagent: str = ""
    ) -> Frame:
        """What a tool has answered, as a message."""
        content = output if isinstance(output, str) else sse.dumps(output).decode(errors="replace")
        more: dict[str, Any] = {"subagentRunId": subagent} if subagent else {}
        more |= {"metadata": metadata} if metadata else {}
        name = self.name("t")
        self._said.begin(self.offset, name, "tool", toolCallId=call_id, content=content, **more)
        known = {"messageId": name, "toolCallId": call_id, "content": content, "role": "tool"}
        return event("TOOL_CALL_RESULT", **known, **more)
