"""Stores which frames a stream's first connection got before the stream's own events.

These frames count when a client names a chunk by its number.
"""

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
    """The first frames of a connection.

    `again` and `settled` have the same meaning as in `UIMessageStream`.
    """

    again: bool = False
    settled: Sequence[AnsweredCall] = field(default=(), repr=False)

    async def keep(self, gateway: Gateway, record: Record) -> None:
        """Store this for clients that reconnect by a number of chunks.

        Most streams have no such frames. For them nothing is stored.
        """
        if self.again:
            state = [asdict(call) for call in self.settled]
            await gateway.parts.conversations.keep(record.owner, record.id, KIND, state)

    @classmethod
    async def kept(cls, gateway: Gateway, record: Record) -> FirstFrames:
        """Return the stored first frames of a stream; empty if nothing is stored, as for other formats."""
        state = await gateway.parts.conversations.kept(record.owner, record.id, KIND)
        return cls() if state is None else cls(True, [AnsweredCall(**call) for call in state])


def first_of(given: Sequence[str]) -> int | None:
    """Return `startIndex`: a chunk's number from 0, or a negative number that counts from the end.

    Return None if the parameter is not given. Raises Invalid.
    """
    if not given:
        return None
    digits = given[0].removeprefix("-")
    if len(given) > 1 or not (digits.isascii() and digits.isdigit()) or len(digits) > MOST_DIGITS:
        raise Invalid("startIndex", "must be a whole number, once")
    return int(given[0])
