"""Stream an answer that is inside a mapping, as RAG chains yield it, and find out which members are text.

LangChain adds up the mappings of `RunnableParallel` and `.assign`. There a member is text if it comes in
several pieces of text, or in one piece that is the complete text of a model. The first piece is held back
until this is known. In any other mapping (of a function or a classic chain) a member is text if everything
that it has yielded is the complete text of a model. A value that grows, as a parser of JSON yields it, is not
text.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables.utils import AddableDict

from gateway.protocol import sse
from workers.langchain.content import text_of
from workers.langchain.inside import documents_in
from workers.langchain.shape import gives_states
from workers.langchain.stage import Stage
from workers.langchain.values import NOTHING, Sum, clean, plain, size_of

if TYPE_CHECKING:
    from workers.langchain.inside import Inside

_WAY_OF_AGENT = frozenset({"actions", "steps", "messages"})
ROOM_BYTES = 1024  # bytes kept free for the rest of the event


@dataclass(slots=True)
class Member:
    """What one member of the mappings has yielded so far."""

    value: Sum  # the sum of the chunks that are not text
    pieces: list[str | AIMessage] = field(default_factory=list)
    held: list[str] = field(default_factory=list)  # text that may belong to the result
    is_text: bool = False
    is_none: bool = False  # True: each piece repeats the earlier ones, so the value grows and is no text

    def hold(self, delta: str, most: int) -> None:
        """Add a piece that may be text. `most`: do not hold more than this many characters."""
        if len(self.held) == 1 and delta.startswith(self.held[0]):
            self.is_none = True
        self.held.append(delta)
        if self.is_none or sum(map(len, self.held)) > most:
            self.is_none = True
            self.held.clear()

    def whole(self) -> Any:
        """Return the whole value, as `ainvoke` would return it."""
        if self.value.value is not NOTHING:
            return self.value.value
        if len(self.pieces) == 1:
            return self.pieces[0]
        if all(isinstance(piece, AIMessageChunk) for piece in self.pieces):
            first, *rest = self.pieces
            return first + rest  # type: ignore[operator]
        return "".join(text_of(piece) for piece in self.pieces)


class Members:
    """Reads mappings. Emits their text as it comes, and the rest at the end."""

    def __init__(self, tap: Inside, stage: Stage, last: Any) -> None:
        """`last` is the step of the chain that yields the mappings."""
        self._tap = tap
        self._stage = stage
        self._is_agent = is_agent(last)
        self._has_text = not gives_states(last)
        self._members: dict[str, Member] = {}
        self._is_added_up = True
        self._mappings = 0

    @property
    def is_empty(self) -> bool:
        """Whether no mapping has come."""
        return self._mappings == 0

    async def add(self, chunk: Mapping[Any, Any]) -> None:
        """Add the next mapping.

        Raises TooLong if a member that is not text becomes larger than an event may be.
        """
        self._mappings += 1
        if not isinstance(chunk, AddableDict):
            self._is_added_up = False
        if not self._is_added_up:
            self._replace(chunk)
        for name, part in chunk.items():
            if not self._is_agent or name not in _WAY_OF_AGENT:
                await self._take(str(name), part)

    def _replace(self, chunk: Mapping[Any, Any]) -> None:
        """Replace all earlier mappings by this one. Of earlier members, only possible text is kept."""
        before, self._members = self._members, {}
        for name in map(str, chunk):
            if name in before:
                self._members[name] = self._member()
                self._members[name].held = before[name].held
                self._members[name].is_none = before[name].is_none

    def _member(self) -> Member:
        """Return a new member. If each value replaces the last one, only the event limits its size."""
        most = self._stage.max_event if self._is_added_up else sys.maxsize
        return Member(Sum(most, size=self._size_of))

    async def _take(self, name: str, part: Any) -> None:
        if name not in self._members:
            self._members[name] = self._member()
        member = self._members[name]
        if not isinstance(part, str | AIMessage) or member.value.value is not NOTHING:
            if member.pieces:
                member.value.add(member.whole())
                member.pieces.clear()
            member.value.add(part)
            return
        member.pieces.append(part)
        if not self._has_text or not (delta := text_of(part)):
            return
        if member.is_text:
            await self._say(name, delta)
        elif self._is_added_up:
            member.held.append(delta)
            if len(member.held) > 1 or delta in self._tap.models.said:
                await self._tell(name, member)
        elif not member.is_none:
            member.hold(delta, self._stage.max_event)

    def _size_of(self, value: Any) -> int:
        """Return the size of a value. Documents count as 0, because they can be emitted as sources."""
        return 0 if documents_in(value) else size_of(value)

    async def end(self) -> Any:
        """Emit the rest. Return the whole mapping as JSON."""
        for name, member in self._members.items():
            if member.held and not member.is_text and "".join(member.held) in self._tap.models.said:
                await self._tell(name, member)
        wholes = {name: member.whole() for name, member in self._members.items()}
        left = {name: wholes[name] for name, member in self._members.items() if not member.is_text}
        result = plain(wholes)
        if self._stage.hands_on and fits(result, self._stage):
            await self._tap.emit(self._stage.custom("result", result))
        else:
            await tell_value(self._tap, self._stage, left, is_rest=len(left) < len(wholes))
        return result

    async def _tell(self, name: str, member: Member) -> None:
        member.is_text = True
        for delta in member.held:
            await self._say(name, delta)
        member.held.clear()

    async def _say(self, name: str, delta: str) -> None:
        stage = replace(self._stage, marks={**self._stage.marks, "member": clean(name)})
        await self._tap.emit(stage.text(delta))


def fits(said: Any, stage: Stage) -> bool:
    """Return whether this value fits into an event."""
    return len(sse.dumps(said)) + ROOM_BYTES <= stage.max_event


async def tell_value(tap: Inside, stage: Stage, value: Mapping[str, Any], *, is_rest: bool) -> None:
    """Emit the event `result` for a mapping, without documents that were emitted as sources.

    If the event would be too large, the remaining documents are emitted as sources instead. If the mapping is
    an empty rest (`is_rest`), no event is emitted. Raises TooLong.
    """
    left = {name: item for name, item in value.items() if not tap.has_told(item)}
    said = plain(left)
    if not fits(said, stage):
        for name, item in list(left.items()):
            if documents := documents_in(item):
                await tap.tell_sources(stage, documents)
                del left[name], said[name]
    if left or (not is_rest and len(left) == len(value)):
        await tap.emit(stage.custom("result", said))


def is_agent(last: Any) -> bool:
    """Return whether this step is a classic AgentExecutor, which streams its steps and its value."""
    classic = sys.modules.get("langchain_classic.agents.agent")
    return classic is not None and isinstance(last, classic.AgentExecutor)
