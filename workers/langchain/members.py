"""An answer inside a mapping, as RAG chains give it: which member is text, and what is left for the result.

Of the mappings that LangChain adds up (`RunnableParallel`, `.assign`), a member is text when it comes in
several pieces of text, or in one that is what a model has said whole. A first piece is held back until that
is known. Of any other mapping (a function's, a classic chain's) a member is text when all that it has yielded
is what a model has said whole: what grows, as a parser of JSON yields it, is none.
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
ROOM_BYTES = 1024  # for what is around a value in its event


@dataclass(slots=True)
class Member:
    """What one member of the mappings has yielded so far."""

    value: Sum  # of what is no text
    pieces: list[str | AIMessage] = field(default_factory=list)
    held: list[str] = field(default_factory=list)  # text that may be the result's
    is_text: bool = False
    is_none: bool = False  # each piece is the whole so far: a value that grows

    def hold(self, delta: str, most: int) -> None:
        """One piece more that may be text. `most`: more than so many characters are not remembered."""
        if len(self.held) == 1 and delta.startswith(self.held[0]):
            self.is_none = True
        self.held.append(delta)
        if self.is_none or sum(map(len, self.held)) > most:
            self.is_none = True
            self.held.clear()

    def whole(self) -> Any:
        """All of it, as `ainvoke` would give it."""
        if self.value.value is not NOTHING:
            return self.value.value
        if len(self.pieces) == 1:
            return self.pieces[0]
        if all(isinstance(piece, AIMessageChunk) for piece in self.pieces):
            first, *rest = self.pieces
            return first + rest  # type: ignore[operator]
        return "".join(text_of(piece) for piece in self.pieces)


class Members:
    """Takes mappings; tells text as it comes, and at the end what is left."""

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
        """The next mapping. Raises TooLong where a member that is no text grows beyond an event's bound."""
        self._mappings += 1
        if not isinstance(chunk, AddableDict):
            self._is_added_up = False
        if not self._is_added_up:
            self._replace(chunk)
        for name, part in chunk.items():
            if not self._is_agent or name not in _WAY_OF_AGENT:
                await self._take(str(name), part)

    def _replace(self, chunk: Mapping[Any, Any]) -> None:
        """This mapping counts, and none before it: of their members only what could be text is remembered."""
        before, self._members = self._members, {}
        for name in map(str, chunk):
            if name in before:
                self._members[name] = self._member()
                self._members[name].held = before[name].held
                self._members[name].is_none = before[name].is_none

    def _member(self) -> Member:
        """A value that replaces the last one is never gathered: its event alone bounds it."""
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
        """Documents that were told, or can be told instead, take no room."""
        return 0 if documents_in(value) else size_of(value)

    async def end(self) -> Any:
        """Tell what is left; the whole mapping as JSON."""
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
    """Whether an event may bear this value."""
    return len(sse.dumps(said)) + ROOM_BYTES <= stage.max_event


async def tell_value(tap: Inside, stage: Stage, value: Mapping[str, Any], *, is_rest: bool) -> None:
    """The event `result` of a mapping, without documents that were told as sources.

    Where it would be larger than an event may be, documents that were not told are told as sources instead.
    Of a rest that is empty there is no event. Raises TooLong.
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
    """Whether this step is a classic AgentExecutor, which streams its way too, and not only its value."""
    classic = sys.modules.get("langchain_classic.agents.agent")
    return classic is not None and isinstance(last, classic.AgentExecutor)
