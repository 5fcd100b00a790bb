"""Measure how long a stream stops when its worker is killed: the earlier worker, and the time of the next
event."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from redis.exceptions import RedisError

from gateway.queue.job_queue import Message
from gateway.queue.redis_queue import GROUP
from gateway.store.log import Log
from tests.chaos.stage import LEASE_SECONDS, Stage
from tests.chaos.tally import Recovery, Tally

PROMISE_SECONDS = LEASE_SECONDS + 2.0  # the next attempt, after a kill without other faults
TOLERANCE = 3
LONGEST_SECONDS = 60.0
QUEUE = "{holdfast-jobs}:queue"
_LOOK_SECONDS = 0.05


async def held_by(stage: Stage, pid: int) -> dict[str, list[bytes | None]]:
    """Return the running streams whose deliveries a process has pending, with their states."""
    try:
        pending = await stage.redis.xpending_range(QUEUE, GROUP, "-", "+", 200)
        mine = [entry["message_id"] for entry in pending if b"-%d-" % pid in entry["consumer"]]
        found = {}
        for receipt in mine:
            for _, fields in await stage.redis.xrange(QUEUE, receipt, receipt):
                stream = Message.decode(fields[b"job"]).id
                state = await _state(stage, stream)
                if state[0] == b"running":
                    found[stream] = state
        return found
    except RedisError:
        return {}  # Redis is down now, so the state is unknown


async def measure(stage: Stage, tally: Tally, stream: str, before: list[bytes | None], killed: float) -> None:
    """Wait until the stream continues. A stream that another process held, or that has ended, does not
    count."""
    attempted = 0.0
    while monotonic() < killed + LONGEST_SECONDS:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            status, attempt, last = await _state(stage, stream)
        except RedisError:
            continue
        now = monotonic()
        if attempt != before[1] and not attempted:
            attempted = now
            begun_at = last
        if status == b"cancelled" or status is None or (last != before[2] and not attempted):
            return
        if attempted and (last != begun_at or last != before[2]):
            _note(stage, tally, stream, killed, attempted, now)
            return
    if attempted:
        _note(stage, tally, stream, killed, attempted, monotonic())


def _note(stage: Stage, tally: Tally, stream: str, killed: float, attempted: float, event: float) -> None:
    others = [*stage.store.away, *stage.unrest]
    alone = sum(window.meets(killed - LEASE_SECONDS, event) for window in others) <= 1
    found = Recovery(stream, attempted - killed, event - killed, alone)
    tally.recoveries.append(found)
    if alone and found.attempt > TOLERANCE * PROMISE_SECONDS:
        tally.find(
            f"stream {stream}: its next attempt came {found.attempt:.1f} s after the kill of its worker"
        )


async def _state(stage: Stage, stream: str) -> list[Any]:
    """Return status, attempt and last id."""
    answer = await stage.redis.hmget(Log.keys(stream)[0], ["status", "attempt", "last_id"])
    return list(answer)
