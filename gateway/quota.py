"""What one caller may have: streams that are not ended, starts in a minute, bytes kept. Counted in Redis.

Nobody tells when a stream ends: a caller's streams are looked at when it starts another, so a process that
dies leaves nothing counted for ever. One script decides, so the numbers hold however many start at once.
Where callers are not told apart there is no quota: everybody would share it.
"""

from __future__ import annotations

import hashlib
import math

from gateway.connection import Connection
from gateway.conversations import OF_STREAM, Conversations
from gateway.errors import OverQuota
from gateway.log import Log
from gateway.protocol import ANONYMOUS, ENDED
from gateway.script import Script
from gateway.settings import Settings

LOOKS = 16  # streams that one start looks at, the longest unseen first
SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 2, 3600
RECORD_BYTES = 1024  # what a stream costs beside its log
_ENDED = frozenset(status.value.encode() for status in ENDED)
_RULES = {
    "streams": "{} streams that are not ended",
    "starts": "{} starts a minute",
    "bytes": "{} bytes of ended streams",
}
# id, `running`, `ended`, `making` or `gone`, bytes, and how long it is kept, in ms
Look = tuple[str, str, int, int]


class Quota:
    """Admits streams by their owner."""

    def __init__(self, redis: Connection, settings: Settings) -> None:
        self._redis = redis
        self._most = (settings.max_owner_streams, settings.max_owner_starts, settings.max_owner_bytes)
        keep = max(settings.retention + settings.tombstone, 2 * settings.max_run)
        self._keep_ms = round(keep * 1000)
        self._script = Script("admit", shared=False)

    @staticmethod
    def keys(owner: str) -> list[str]:
        """The keys of a caller, who is named by a hash: live, starts, kept, bytes, looked."""
        tag = hashlib.sha256(owner.encode()).hexdigest()[:32]
        return [f"{{{tag}}}:{name}" for name in ("live", "starts", "kept", "bytes", "looked")]

    async def admit(self, owner: str, stream_id: str) -> int:
        """Take a place for a stream about to be made; answers how many others this owner has.

        Raises OverQuota, which names the rule and when to come back, or StoreUnavailable.
        """
        if owner == ANONYMOUS:
            return 0
        word, number = await self._ask(owner, stream_id, LOOKS)
        if word == "look":
            word, number = await self._ask(owner, stream_id, self._most[0])
        if word == "ok":
            return number - 1
        seconds = min(max(math.ceil(number / 1000), SHORTEST_RETRY_SECONDS), LONGEST_RETRY_SECONDS)
        most = dict(zip(_RULES, self._most, strict=True))[word]
        raise OverQuota(f"a caller may have {_RULES[word].format(most)}", seconds)

    async def release(self, owner: str, stream_id: str, *, started: bool = False) -> None:
        """Give the place back: the stream was not made; `started`: it counts as a start of this minute.

        Raises StoreUnavailable.
        """
        if owner != ANONYMOUS:
            live, starts, *_ = self.keys(owner)
            kept = [] if started else [("ZREM", starts, stream_id)]
            await self._redis.call_all([("ZREM", live, stream_id), *kept])

    async def _ask(self, owner: str, stream_id: str, looks: int) -> tuple[str, int]:
        keys = self.keys(owner)
        raw = await self._redis.call("ZRANGE", keys[0], 0, looks - 1)
        seen = await self._look(owner, [item.decode() for item in raw])
        given = [value for look in seen for value in look]
        answer = await self._script(self._redis, keys, stream_id, *self._most, self._keep_ms, *given)
        return answer[0], answer[1] if len(answer) > 1 else 0

    async def _look(self, owner: str, stream_ids: list[str]) -> list[Look]:
        """What these streams are and cost, in one round trip."""
        if not stream_ids:
            return []
        commands: list[tuple[str, ...]] = []
        for stream_id in stream_ids:
            job, log, _ = Log.keys(stream_id)
            commands += [("HMGET", job, "status", "confirmed"), ("STRLEN", log), ("PTTL", log)]
            commands.append(("HSTRLEN", Conversations.key(OF_STREAM, owner, stream_id), "state"))
        answers = iter(await self._redis.call_all(commands))
        return [_look(one, *(next(answers) for _ in range(4))) for one in stream_ids]


def _look(stream_id: str, known: list[bytes | None], length: int, left_ms: int, kept: int) -> Look:
    status, confirmed = known
    if status is None:
        return stream_id, "gone", 0, 0
    if confirmed is None and status not in _ENDED:  # its POST is under way, or has died
        return stream_id, "making", 0, 0
    return stream_id, "ended" if status in _ENDED else "running", length + kept + RECORD_BYTES, left_ms
