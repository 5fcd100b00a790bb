"""The journal of a stream: entries for its owner that are not yet copied to the owner's keys.

The scripts that change a stream write the entries (`tell` in common.lua). Each entry is written in the
stream's own bucket, in the same step as the change that it describes. It remains until a process acknowledges
that its work is done. The due index of the bucket lists the streams whose entries are so old that the process
which had to handle them must have died.
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

MOST_ENTRIES = 100  # most entries that one read of a stream returns
MOST_OF_A_BUCKET = 100  # most streams of a bucket that one sweep handles
UNSTORED_MS = 7000  # the same value as in common.lua
TOKENS = ("input_tokens", "output_tokens")


@dataclass(frozen=True)
class JournalEntry:
    """One entry of a journal.

    `raw` is what the script wrote, with the fields of the record at that moment.
    """

    id: bytes
    stream_id: str
    read_ms: int  # when this process read the entry, by Redis's clock
    raw: dict[str, bytes]

    @property
    def kind(self) -> str:
        """`started`, `stage`, `waiting` or `ended`; or `erase`: no data of this stream may be kept."""
        return self.raw["kind"].decode()

    @property
    def number(self) -> int:
        """The position of this entry among the entries of its stream, from 1."""
        return int(self.raw["seq"])

    @property
    def at_ms(self) -> int:
        """When the script wrote this entry, in milliseconds of Redis's clock."""
        return int(self.raw["at"])

    @property
    def owner(self) -> str:
        """The owner of the stream."""
        return self.raw.get("owner", b"").decode()

    @property
    def is_early(self) -> bool:
        """Return whether the due time of this entry is still to come.

        A due time further away than UNSTORED_MS was set before the clock went back, so it counts as past.
        """
        return 0 < int(self.raw.get("due_ms", 0)) - self.read_ms <= UNSTORED_MS

    @property
    def first(self) -> str:
        """For an `erase` entry: the stream whose checkpoints must be deleted.

        It is empty if another stream continues from these checkpoints.
        """
        return "" if self.raw["resumed"] == b"1" else self.raw["first"].decode()

    @property
    def chain(self) -> str:
        """The stream's chain, for the metrics."""
        return self.raw.get("chain", b"").decode()

    @property
    def record(self) -> Record:
        """The stream at the time of the entry, with the fields that a reader may see."""
        return Record.of(self.stream_id, self.raw)

    @cached_property
    def spent(self) -> tuple[int, int]:
        """Input and output tokens of the whole stream.

        Only the entry that counts tokens has them; other entries give zero. The sum contains the tokens of
        finished stages, of the unfinished stage, and of lost tries. If the model reported no usage, each
        piece of text counts as one output token. What a retry copied from the failed stream is not counted
        again, since it was counted for that stream.
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
    """The journals of all streams. The methods raise StoreUnavailable."""

    def __init__(self, redis: Commands) -> None:
        self._redis = redis
        self._acknowledge = Script("acknowledge")

    @staticmethod
    def key(stream_id: str) -> str:
        """Return the key of a stream's journal."""
        return f"{_tag(stream_id)}:journal:{stream_id}"

    @staticmethod
    def due_key(stream_id: str) -> str:
        """Return the key of the due index of a stream's bucket."""
        return f"{_tag(stream_id)}:due"

    async def read(self, stream_id: str) -> list[JournalEntry]:
        """Return the oldest entries of a stream, in order; at most MOST_ENTRIES."""
        read = ("XRANGE", self.key(stream_id), "-", "+", "COUNT", MOST_ENTRIES)
        (seconds, micros), found = await self._redis.call_all([("TIME",), read])
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        return [JournalEntry(one, stream_id, now_ms, _pairs(flat)) for one, flat in found]

    async def acknowledge(self, stream_id: str, entries: Sequence[JournalEntry]) -> tuple[bool, int]:
        """Remove entries whose work is done.

        Return whether there are more entries to handle now, and in how many milliseconds the next entry is
        due (0: there is none).
        """
        tag = _tag(stream_id)
        keys = [f"{tag}:job:{stream_id}", f"{tag}:log:{stream_id}", f"{tag}:open"]
        answer = await self._acknowledge(self._redis, keys, stream_id, *(one.id for one in entries))
        return answer[0] == "more", answer[1] if answer[0] == "later" else 0

    async def due(self) -> list[str]:
        """Return the streams that have entries which no process handled, or a question that expires now."""
        return await due(self._redis, "due", MOST_OF_A_BUCKET)


def _tag(stream_id: str) -> str:
    return "{" + stream_id[:2] + "}"


def _pairs(flat: list[bytes]) -> dict[str, bytes]:
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
