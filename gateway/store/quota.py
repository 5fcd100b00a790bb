"""Limit what one caller may have: streams that are not ended, starts in a minute, stored bytes.

Counted in Redis.

The bytes are the real memory of Redis for the ended streams: a log until its retention is over, and a record
until its tombstone is over.

No message reports the end of a stream to this module. Instead, the streams of a caller are checked when the
caller starts another stream. So a process that dies leaves nothing counted for ever. One script decides, so
the limits hold even if many streams start at once. If callers are not identified there is no quota, because
all callers would share it.
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

LOOKS = 16  # streams that one start checks, those first whose last check is the oldest
FORGOTTEN_AT_ONCE = 100  # most deleted streams in one script call
SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 2, 3600
LONGEST_BUDGET_SECONDS = 86_400
INDEX_BYTES = 320  # bytes for a stream's entries in `kept`, and for the expiries of its keys
KEY_BYTES = 256  # bytes for a stream's idempotency key
# Estimates for a store that cannot measure the memory of a key. Redis reserves up to twice the length of a
# string that grows.
RECORD_BYTES, LOG_FACTOR = 1600, 2
STATES, SIZES = 3, 5  # how many answers `_state_of` and `_memory_of` get for one stream
_ENDED = frozenset(status.value.encode() for status in ENDED)
_RULES = {
    "streams": "{} streams that are not ended",
    "starts": "{} starts a minute",
    "bytes": "{} bytes of ended streams",
}
# What is known of one stream: id; `running`, `ended`, `making` or `gone`; bytes of the log; ms until the log
# expires; bytes of the record; ms until the record expires.
Look = tuple[str, str, int, int, int, int]
Command = tuple[str | int, ...]


class Quota:
    """Admits new streams within the limits of their owner."""

    def __init__(self, redis: Commands, settings: Settings, plans: Plans | None = None) -> None:
        """`plans` has the limits of each caller. None: a new `Plans` is made from the settings."""
        self._redis = redis
        self._plans = Plans(settings) if plans is None else plans
        self._usage = Usage(redis)
        self._keep_ms = round(settings.record_seconds * 1000)
        self._tombstone_ms = round(settings.tombstone * 1000)
        self._script = Script("admit", shared=False)
        self._uncount = Script("uncount", shared=False)
        self._measures = True  # False after the store has refused MEMORY USAGE, as fakeredis does

    @staticmethod
    def keys(owner: str) -> list[str]:
        """Return the caller's keys: live, starts, kept, bytes, looked.

        They contain a hash of the owner's name.
        """
        tag = hashlib.sha256(owner.encode()).hexdigest()[:32]
        return [f"{{{tag}}}:{name}" for name in ("live", "starts", "kept", "bytes", "looked")]

    async def admit(self, owner: str, stream_id: str) -> int:
        """Count a stream that is about to be created. Return how many other streams the owner has.

        Raises StoreUnavailable, or OverQuota, which names the rule and the time after which to retry.
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
        """Remove the count of a stream that was not created.

        `started`: still count it as a start of this minute. Raises StoreUnavailable.
        """
        if owner != ANONYMOUS:
            live, starts, *_ = self.keys(owner)
            kept = [] if started else [("ZREM", starts, stream_id)]
            await self._redis.call_all([("ZREM", live, stream_id), *kept])

    async def uncount(self, owner: str, stream_id: str, left_ms: int) -> None:
        """Correct the counted bytes of a stream that no longer waits.

        Such a stream is kept for a shorter time. `left_ms`: for how long its log would have been kept before.
        Raises StoreUnavailable.
        """
        if owner != ANONYMOUS:
            live, _, kept, size, _ = self.keys(owner)
            record_ms = left_ms + self._tombstone_ms
            await self._uncount(self._redis, [live, kept, size], 0, stream_id, left_ms, record_ms)

    async def forget(self, owner: str, streams: Mapping[str, tuple[int, int]]) -> None:
        """Remove the counts of deleted streams.

        For each stream: the ms for which its log and its record would have been kept. Raises
        StoreUnavailable.
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
        """Raise OverQuota if the caller's streams have used all tokens of a limit."""
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
        """Return the state and the size of these streams. This takes one round trip."""
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
    """Return the commands that measure the memory of one stream, with all overhead.

    They measure its record, log, state of a format, what a retry needs, and checkpoints.
    """
    job, log, _ = Log.keys(stream_id)
    kept = Conversations.key(OF_STREAM, owner, stream_id)
    whole = ("SAMPLES", 0)  # measure all fields of a hash, not a sample of five
    names = ((job, *whole), (log,), (kept, *whole), (Log.kept_key(stream_id), *whole))
    return [*(("MEMORY", "USAGE", *name) for name in names), _checkpoints_of(owner, stream_id)]


def _lengths_of(owner: str, stream_id: str) -> list[Command]:
    """Return the commands for a store that can only report lengths.

    They have the same order as those of `_memory_of`. The answer for the record is not used: its size is a
    constant.
    """
    job, log, _ = Log.keys(stream_id)
    kept = Conversations.key(OF_STREAM, owner, stream_id)
    again = Log.kept_key(stream_id)
    sizes: list[Command] = [("EXISTS", job), ("STRLEN", log), ("HSTRLEN", kept, "state")]
    return [*sizes, ("HSTRLEN", again, "input"), _checkpoints_of(owner, stream_id)]


def _checkpoints_of(owner: str, stream_id: str) -> Command:
    """Return the command that reads the bytes of checkpoints in the stream's own thread.

    The scripts of checkpoints count these bytes.
    """
    return ("HGET", keys_of(owner, own_thread_of(stream_id))[0], "#bytes")


def _looks(stream_ids: list[str], answers: list[Any]) -> list[Look]:
    """Combine the answers to `_state_of` of each stream with the answers to `_memory_of` of each stream."""
    found = []
    for at, one in enumerate(stream_ids):
        state = answers[at * STATES : (at + 1) * STATES]
        sizes = answers[len(stream_ids) * STATES + at * SIZES :][:SIZES]
        found.append(_look(one, *state, *(int(size or 0) for size in sizes)))
    return found


def _look(
    stream_id: str, known: list[bytes | None], left: int, record_left: int, record: int, *beside: int
) -> Look:
    """Combine the answers for one stream. `beside`: the sizes of what expires together with the log."""
    status, confirmed, idem = known
    if status is None:
        return stream_id, "gone", 0, 0, 0, 0
    if confirmed is None and status not in _ENDED:  # the stream is being created, or its creation failed
        return stream_id, "making", 0, 0, 0, 0
    word = "ended" if status in _ENDED else "running"
    return stream_id, word, sum(beside) + (KEY_BYTES if idem else 0), left, record + INDEX_BYTES, record_left
