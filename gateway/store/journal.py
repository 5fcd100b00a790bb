"""What the scripts of a stream have written for its owner, and nobody has brought to the owner's keys yet.

Each entry stands in the stream's own bucket since the very step that it tells of (`tell` in common.lua), and
stays until somebody acknowledges that its work is done. The bucket's due index says which streams have had
entries for so long that the process which was to do it must have died.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from gateway.redis.commands import Commands
from gateway.redis.script import Script
from gateway.store.due import due
from gateway.store.record import Record

MOST_ENTRIES = 100  # of one look at a stream
MOST_OF_A_BUCKET = 100  # streams of one sweep
UNSTORED_MS = 7000  # as common.lua has it
TOKENS = ("input_tokens", "output_tokens")


@dataclass(frozen=True)
class JournalEntry:
    """One entry. `raw`: what the script wrote, with the record's fields as they were then."""

    id: bytes
    stream_id: str
    read_ms: int  # when it was read, by Redis's clock
    raw: dict[str, bytes]

    @property
    def kind(self) -> str:
        """`started`, `stage`, `waiting`, `ended`, or `erase`: nothing of the stream is to be kept."""
        return self.raw["kind"].decode()

    @property
    def number(self) -> int:
        """Its place among the entries of its stream, from 1."""
        return int(self.raw["seq"])

    @property
    def at_ms(self) -> int:
        """When it was written, by Redis's clock."""
        return int(self.raw["at"])

    @property
    def owner(self) -> str:
        """Whose stream it is."""
        return self.raw.get("owner", b"").decode()

    @property
    def is_early(self) -> bool:
        """Whether its time has not come. One too far away was set by a clock that has gone back since."""
        return 0 < int(self.raw.get("due_ms", 0)) - self.read_ms <= UNSTORED_MS

    @property
    def first(self) -> str:
        """Of `erase`: the stream whose checkpoints go; empty where another stream goes on from them."""
        return "" if self.raw["resumed"] == b"1" else self.raw["first"].decode()

    @property
    def chain(self) -> str:
        """The stream's chain, for the metrics."""
        return self.raw.get("chain", b"").decode()

    @property
    def record(self) -> Record:
        """The stream as it was then, as far as a reader may know it."""
        return Record.of(self.stream_id, self.raw)

    @cached_property
    def spent(self) -> tuple[int, int]:
        """Tokens in and out of the whole stream, in the one entry that counts them; else none.

        Those of finished stages, of the unfinished one, and of lost tries; and where the model has told no
        usage, the pieces of text that came. What a retry has from the failed stream was paid there.
        """
        if "spends" not in self.raw:
            return 0, 0
        told = {name: json.loads(self.raw.get(name, b"{}")) for name in ("usage", "lost", "used", "paid")}
        tokens_in, tokens_out = (
            sum(
                max(int(told[part].get(name, 0)) - int(told["paid"].get(part, {}).get(name, 0)), 0)
                for part in ("usage", "lost")
            )
            + sum(int(one.get(name, 0)) for one in told["used"].values())
            for name in TOKENS
        )
        return tokens_in, tokens_out + int(self.raw.get("pieces", b"0"))


class Journal:
    """The journals of all streams. Raises StoreUnavailable."""

    def __init__(self, redis: Commands) -> None:
        self._redis = redis
        self._acknowledge = Script("acknowledge")

    @staticmethod
    def key(stream_id: str) -> str:
        """Where a stream's journal stands."""
        return f"{_tag(stream_id)}:journal:{stream_id}"

    @staticmethod
    def due_key(stream_id: str) -> str:
        """The due index of a stream's bucket."""
        return f"{_tag(stream_id)}:due"

    async def read(self, stream_id: str) -> list[JournalEntry]:
        """The oldest entries, in order."""
        read = ("XRANGE", self.key(stream_id), "-", "+", "COUNT", MOST_ENTRIES)
        (seconds, micros), found = await self._redis.call_all([("TIME",), read])
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        return [JournalEntry(one, stream_id, now_ms, _pairs(flat)) for one, flat in found]

    async def acknowledge(self, stream_id: str, entries: Sequence[JournalEntry]) -> tuple[bool, int]:
        """The work of these is done. Whether there is more now, and in how many ms the next one is due."""
        tag = _tag(stream_id)
        keys = [f"{tag}:job:{stream_id}", f"{tag}:log:{stream_id}", f"{tag}:open"]
        answer = await self._acknowledge(self._redis, keys, stream_id, *(one.id for one in entries))
        return answer[0] == "more", answer[1] if answer[0] == "later" else 0

    async def due(self) -> list[str]:
        """Streams whose entries somebody has left behind, or whose question expires now."""
        return await due(self._redis, "due", MOST_OF_A_BUCKET)


def _tag(stream_id: str) -> str:
    return "{" + stream_id[:2] + "}"


def _pairs(flat: list[bytes]) -> dict[str, bytes]:
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
