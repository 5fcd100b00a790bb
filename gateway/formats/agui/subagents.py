"""What happens below a tool, as AG-UI's sub-agents: a tool in which a model speaks is one. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.formats.agui.messages import FAILED
from gateway.formats.agui.said import Said
from gateway.formats.agui.writing import REASONING, TEXT, OpenMessages, event
from gateway.formats.base.projection import Frame
from gateway.protocol import sse
from gateway.streams.messages import call as made_call


@dataclass(slots=True)
class _Agent:
    """One sub-agent; `call`: the id, in the log, of the tool call that it is."""

    name: str
    call: str
    parent: _Agent | None  # the one below whose call it is
    speakers: list[str] = field(default_factory=list)
    calls: dict[str, tuple[str, str]] = field(default_factory=dict)  # by their ids in the log: shown, tool


class Below:
    """All sub-agents of a run that have begun and have not ended."""

    def __init__(self, write: OpenMessages, said: Said) -> None:
        self._write = write
        self._said = said
        self._agents: dict[str, _Agent] = {}  # by the call that each is, the outermost first

    def begin(self, within: str, calls: Mapping[str, tuple[str, str]]) -> Iterator[Frame]:
        """The sub-agent that this call is, if it is not known yet. `calls`: those of the run itself."""
        if within in self._agents:
            return
        parent = next((one for one in self._agents.values() if within in one.calls), None)
        shown, tool = (parent.calls if parent else calls).get(within, ("", ""))
        name = self._write.name("a")
        self._agents[within] = _Agent(name, within, parent)
        more = {"parentToolCallId": shown} if shown else {}
        more |= {"parentSubagentRunId": parent.name} if parent else {}
        yield event("SUBAGENT_STARTED", subagentRunId=name, name=tool or "tool", **more)

    def said(self, data: Any) -> Iterator[Frame]:
        """A piece of what one says, or thinks."""
        agent = self._agents[data["within"]]
        told = [data["within"], data.get("stage"), data.get("run"), data.get("path"), data.get("message")]
        speaker = sse.dumps(told).decode(errors="replace")
        if speaker not in agent.speakers:
            agent.speakers.append(speaker)
        if "reasoning" in data:
            yield from self._write.say(REASONING, speaker, str(data["reasoning"]), agent.name)
            return
        yield from self._write.end(speaker, kind=REASONING)
        yield from self._write.say(TEXT, speaker, str(data["delta"]), agent.name)

    def tool(self, data: Any) -> Iterator[Frame]:
        """A call of one's, or its result."""
        agent, call_id = self._agents[data["within"]], str(data["call_id"])
        of = {"subagentRunId": agent.name}
        if call_id not in agent.calls:
            yield from self._write.end(*(agent.speakers or ("",)))
            shown, message = self._write.name("c"), self._write.name("m")
            agent.calls[call_id] = shown, data["name"]
            given = data.get("input")
            arguments = sse.dumps(given if isinstance(given, dict) else {"input": given}).decode(
                errors="replace"
            )
            self._said.begin(self._write.offset, message, "assistant", **of)
            self._said.call(message, made_call(shown, data["name"], arguments))
            known = {"toolCallName": data["name"], "parentMessageId": message}
            yield event("TOOL_CALL_START", toolCallId=shown, **known, **of)
            yield event("TOOL_CALL_ARGS", toolCallId=shown, delta=arguments, **of)
            yield event("TOOL_CALL_END", toolCallId=shown, **of)
        if data["state"] != "started":
            yield from self._end_below(agent, call_id, failed=data["state"] == "failed")
            shown, _ = agent.calls.pop(call_id)
            more = FAILED if data["state"] == "failed" else None
            yield self._write.result(shown, data.get("output"), more, agent.name)

    def end(self, call_id: str, *, failed: bool = False) -> Iterator[Frame]:
        """The sub-agent that this call is, if it is one, and those below it."""
        agent = self._agents.get(call_id)
        if agent is None:
            return
        for below in list(agent.calls):
            yield from self._end_below(agent, below)
        yield from self._write.end(*(agent.speakers or ("",)))
        del self._agents[call_id]
        if failed:
            yield event("SUBAGENT_ERROR", subagentRunId=agent.name, message="The tool failed.")
        else:
            yield event("SUBAGENT_FINISHED", subagentRunId=agent.name, outcome={"type": "success"})

    def _end_below(self, parent: _Agent, call_id: str, *, failed: bool = False) -> Iterator[Frame]:
        """The sub-agent that a call of this one is: a model below may number its calls as one above does."""
        agent = self._agents.get(call_id)
        if agent is not None and agent.parent is parent:
            yield from self.end(call_id, failed=failed)

    def close(self) -> Iterator[Frame]:
        """All of them end."""
        while self._agents:
            yield from self.end(next(reversed(self._agents)))
