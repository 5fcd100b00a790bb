"""What one caller may have: streams that are not ended, starts in a minute, bytes kept. Counted in Redis.

The bytes are what Redis really holds for the ended streams: a log until its retention is over, and a record
until its tombstone is.

Nobody tells when a stream ends: a caller's streams are looked at when it starts another, so a process that
dies leaves nothing counted for ever. One script decides, so the numbers hold however many start at once.
Where callers are not told apart there is no quota: everybody would share it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

from gateway.protocol import ANONYMOUS, ENDED
from gateway.protocol.errors import OverQuota
from gateway.redis.commands import Commands, checked
from gateway.redis.script import Script
from gateway.settings import Settings
from gateway.store.conversations import OF_STREAM, Conversations
from gateway.store.log import Log
from gateway.store.plans import PlanLimits, Plans
from gateway.store.threads import keys_of, own_thread_of
from gateway.store.usage import Usage

LOOKS = 16  # streams that one start looks at, the longest unseen first
FORGOTTEN_AT_ONCE = 100  # deleted streams of one call
SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 2, 3600
LONGEST_BUDGET_SECONDS = 86_400
INDEX_BYTES = 320  # of a stream's entries in `kept`, and of the expiries of its keys
KEY_BYTES = 256  # of a stream's idempotency key
# Where the store cannot say what a key takes. Redis gives a string that grows up to twice its length.
RECORD_BYTES, LOG_FACTOR = 1600, 2
STATES, SIZES = 3, 5  # answers about one stream
_ENDED = frozenset(status.value.encode() for status in ENDED)
_RULES = {
    "streams": "{} streams that are not ended",
    "starts": "{} starts a minute",
    "bytes": "{} bytes of ended streams",
}
# id; `running`, `ended`, `making` or `gone`; bytes of the log, ms until it expires; the same of the record
Look = tuple[str, str, int, int, int, int]
Command = tuple[str | int, ...]


class Quota:
    """Admits streams by their owner."""

    def __init__(self, redis: Commands, settings: Settings, plans: Plans | None = None) -> None:
        """`plans`: what each caller may have; None: they are read here."""
        self._redis = redis
        self._plans = Plans(settings) if plans is None else plans
        self._usage = Usage(redis)
        self._keep_ms = round(settings.record_seconds * 1000)
        self._tombstone_ms = round(settings.tombstone * 1000)
        self._script = Script("admit", shared=False)
        self._uncount = Script("uncount", shared=False)
        self._measures = True  # until the store says that it has no MEMORY USAGE, as fakeredis does

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
        limits = self._plans.of(owner)
        await self._check_tokens(owner, limits)
        word, number = await self._ask(owner, stream_id, LOOKS, limits)
        if word == "look":
            word, number = await self._ask(owner, stream_id, limits.streams, limits)
        if word == "ok":
            return number - 1
        seconds = min(max(math.ceil(number / 1000), SHORTEST_RETRY_SECONDS), LONGEST_RETRY_SECONDS)
        most = dict(zip(_RULES, _most(limits), strict=True))[word]
        raise OverQuota(f"a caller may have {_RULES[word].format(most)}", seconds)

    async def release(self, owner: str, stream_id: str, *, started: bool = False) -> None:
        """Give the place back: the stream was not made; `started`: it counts as a start of this minute.

        Raises StoreUnavailable.
        """
        if owner != ANONYMOUS:
            live, starts, *_ = self.keys(owner)
            kept = [] if started else [("ZREM", starts, stream_id)]
            await self._redis.call_all([("ZREM", live, stream_id), *kept])

    async def uncount(self, owner: str, stream_id: str, left_ms: int) -> None:
        """A stream that waited waits no more, and is kept for a shorter time: its bytes are counted anew.

        `left_ms`: for how long its log was kept until now. Raises StoreUnavailable.
        """
        if owner != ANONYMOUS:
            live, _, kept, size, _ = self.keys(owner)
            record_ms = left_ms + self._tombstone_ms
            await self._uncount(self._redis, [live, kept, size], 0, stream_id, left_ms, record_ms)

    async def forget(self, owner: str, streams: Mapping[str, tuple[int, int]]) -> None:
        """These streams were deleted; for each the ms for which log and record were kept until then.

        Raises StoreUnavailable.
        """
        if owner == ANONYMOUS:
            return
        live, _, kept, size, _ = self.keys(owner)
        told = list(streams.items())
        for first in range(0, len(told), FORGOTTEN_AT_ONCE):
            some = told[first : first + FORGOTTEN_AT_ONCE]
            given = [value for stream_id, left in some for value in (stream_id, *left)]
            await self._uncount(self._redis, [live, kept, size], 1, *given)

    async def _check_tokens(self, owner: str, limits: PlanLimits) -> None:
        """Raises OverQuota where the caller's streams have taken what they may."""
        if not (limits.tokens_per_day or limits.tokens_per_minute):
            return
        rule, wait_ms = (await self._usage.of(owner)).wait_ms(limits)
        if rule:
            seconds = min(max(math.ceil(wait_ms / 1000), 1), LONGEST_BUDGET_SECONDS)
            raise OverQuota(f"a caller's streams may take {rule}", seconds)

    async def _ask(self, owner: str, stream_id: str, looks: int, limits: PlanLimits) -> tuple[str, int]:
        keys = self.keys(owner)
        raw = await self._redis.call("ZRANGE", keys[0], 0, looks - 1)
        seen = await self._look(owner, [item.decode() for item in raw])
        given = [value for look in seen for value in look]
        answer = await self._script(self._redis, keys, stream_id, *_most(limits), self._keep_ms, *given)
        return answer[0], answer[1] if len(answer) > 1 else 0

    async def _look(self, owner: str, stream_ids: list[str]) -> list[Look]:
        """What these streams are and cost, in one round trip."""
        if not stream_ids:
            return []
        known = [command for one in stream_ids for command in _state_of(one)]
        if self._measures:
            sizes = [command for one in stream_ids for command in _memory_of(owner, one)]
            answers = await self._redis.answers(known + sizes)
            checked(answers[: len(known)])
            if not any(isinstance(answer, Exception) for answer in answers[len(known) :]):
                return _looks(stream_ids, answers)
            self._measures = False
        sizes = [command for one in stream_ids for command in _lengths_of(owner, one)]
        answers = await self._redis.call_all(known + sizes)
        for at in range(len(known), len(answers), SIZES):
            answers[at : at + 2] = [RECORD_BYTES, answers[at + 1] * LOG_FACTOR]
        return _looks(stream_ids, answers)


def _most(limits: PlanLimits) -> tuple[int, int, int]:
    return limits.streams, limits.starts_per_minute, limits.bytes


def _state_of(stream_id: str) -> list[Command]:
    job, log, _ = Log.keys(stream_id)
    return [("HMGET", job, "status", "confirmed", "idem"), ("PTTL", log), ("PTTL", job)]


def _memory_of(owner: str, stream_id: str) -> list[Command]:
    """Bytes of the record, log, format's state, checkpoints, and of what a retry needs; with all overhead."""
    job, log, _ = Log.keys(stream_id)
    kept = Conversations.key(OF_STREAM, owner, stream_id)
    whole = ("SAMPLES", 0)  # all fields of a hash, not five
    names = ((job, *whole), (log,), (kept, *whole), (Log.kept_key(stream_id), *whole))
    return [*(("MEMORY", "USAGE", *name) for name in names), _checkpoints_of(owner, stream_id)]


def _lengths_of(owner: str, stream_id: str) -> list[Command]:
    """The same of a store that knows only lengths; the record's is a constant, so its answer is not used."""
    job, log, _ = Log.keys(stream_id)
    kept = Conversations.key(OF_STREAM, owner, stream_id)
    again = Log.kept_key(stream_id)
    sizes: list[Command] = [("EXISTS", job), ("STRLEN", log), ("HSTRLEN", kept, "state")]
    return [*sizes, ("HSTRLEN", again, "input"), _checkpoints_of(owner, stream_id)]


def _checkpoints_of(owner: str, stream_id: str) -> Command:
    """What stands in the stream's own thread, as its scripts count it."""
    return ("HGET", keys_of(owner, own_thread_of(stream_id))[0], "#bytes")


def _looks(stream_ids: list[str], answers: list[Any]) -> list[Look]:
    """From the answers to `_state_of` each, and then to `_memory_of` each."""
    found = []
    for at, one in enumerate(stream_ids):
        state = answers[at * STATES : (at + 1) * STATES]
        sizes = answers[len(stream_ids) * STATES + at * SIZES :][:SIZES]
        found.append(_look(one, *state, *(int(size or 0) for size in sizes)))
    return found


def _look(
    stream_id: str, known: list[bytes | None], left: int, record_left: int, record: int, *beside: int
) -> Look:
    """`beside` the record: what expires with the log."""
    status, confirmed, idem = known
    if status is None:
        return stream_id, "gone", 0, 0, 0, 0
    if confirmed is None and status not in _ENDED:  # its POST is under way, or has died
        return stream_id, "making", 0, 0, 0, 0
    word = "ended" if status in _ENDED else "running"
    return stream_id, word, sum(beside) + (KEY_BYTES if idem else 0), left, record + INDEX_BYTES, record_left
