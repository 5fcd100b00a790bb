"""How the first connection of a stream began: what stands before its events, as chunks are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from gateway.formats.ai_sdk.projection import AnsweredCall
from gateway.protocol.errors import Invalid
from gateway.store.record import Record
from gateway.streams.service import Gateway

KIND = "ai began"
MOST_DIGITS = 15


@dataclass(frozen=True, slots=True)
class FirstFrames:
    """`again` and `settled` as in `UIMessageStream`."""

    again: bool = False
    settled: Sequence[AnsweredCall] = field(default=(), repr=False)

    async def keep(self, gateway: Gateway, record: Record) -> None:
        """For who comes back by a number of chunks; most begin with nothing, which is not kept."""
        if self.again:
            state = [asdict(call) for call in self.settled]
            await gateway.parts.conversations.keep(record.owner, record.id, KIND, state)

    @classmethod
    async def kept(cls, gateway: Gateway, record: Record) -> FirstFrames:
        """How that of a stream did, in whichever format it was started."""
        state = await gateway.parts.conversations.kept(record.owner, record.id, KIND)
        return cls() if state is None else cls(True, [AnsweredCall(**call) for call in state])


def first_of(given: Sequence[str]) -> int | None:
    """A `startIndex`: the number of a chunk, from 0; negative: from the end. None: there is none.

    Raises Invalid.
    """
    if not given:
        return None
    digits = given[0].removeprefix("-")
    if len(given) > 1 or not (digits.isascii() and digits.isdigit()) or len(digits) > MOST_DIGITS:
        raise Invalid("startIndex", "must be a whole number, once")
    return int(given[0])
