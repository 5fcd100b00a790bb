"""The real side of the machine: the keys of one stream in Redis, and the faults that change them."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.redis.commands import Commands
from gateway.store.log import Log
from gateway.store.record import Answer, Claim, Record
from tests.model import streams
from tests.model.store import ENDED, UNIT_MS, Store
from tests.model.streams import KEEP_MS, LEASE_MS, OPEN_MS, TOMBSTONE_MS


@dataclass(frozen=True, slots=True)
class Image:
    """A snapshot of all keys of a stream, and its time. Times to live are in milliseconds."""

    now: int
    job: dict[str, bytes]
    log: bytes
    job_ttl: int
    log_ttl: int
    listed: bytes | None
    index_ttl: int
    kept: dict[str, bytes]
    kept_ttl: int


class Real:
    """Direct access to the keys of one stream, without the product."""

    def __init__(self, redis: Commands, stream: streams.Stream) -> None:
        self._redis = redis
        self._stream = stream
        self._job, self._log, self._index = stream.keys
        self._kept = Log.kept_key(stream.id)
        raw = {"status": b"queued", "last_id": b""}
        self._record = Record.of(stream.id, raw)

    async def append(
        self, token: str, position: int, frames: bytes, last_id: str, status: str, checkpoint: str
    ) -> Answer:
        claim = Claim(self._record, token, 0, 0)
        fields = {"ckpt:answer": checkpoint} if checkpoint else {}
        return await self._stream.log.append(
            claim, position, frames, last_id, LEASE_MS, status=status, fields=fields
        )

    async def look(self) -> Image:
        (seconds, micros), flat, *rest = await self._redis.call_all(
            [
                ("TIME",),
                ("HGETALL", self._job),
                ("GET", self._log),
                ("PTTL", self._job),
                ("PTTL", self._log),
                ("ZSCORE", self._index, self._stream.id),
                ("PTTL", self._index),
                ("HGETALL", self._kept),
                ("PTTL", self._kept),
            ]
        )
        log, job_ttl, log_ttl, listed, index_ttl, kept, kept_ttl = rest
        now = int(seconds) * 1000 + int(micros) // 1000
        expiries = (job_ttl, log_ttl, listed, index_ttl)
        return Image(now, _hash(flat), log or b"", *expiries, _hash(kept), kept_ttl)

    def compare(self, image: Image, model: Store) -> None:
        """Check that log, record and index equal the model, and that every key expires."""
        assert image.log == model.log
        assert (image.listed is not None) == (model.look_at is not None)
        if image.listed is not None and model.look_at is not None:
            assert passes(int(image.listed) - image.now, model.look_at - model.now)
        assert bool(image.job) == model.alive
        ttls = (image.job_ttl, image.log_ttl, image.index_ttl, image.kept_ttl)
        assert -1 not in ttls, "a key without expiry"
        assert image.kept == model.kept
        if not model.alive:
            return
        record = Record.of(self._stream.id, image.job)
        found = (record.status.value, record.attempt, record.failures, record.confirmed, record.last_id)
        assert found == (model.status, model.attempt, model.failures, model.confirmed, model.last_id)
        assert int(image.job.get("asks", 0)) == model.asks
        if record.status == "running":
            assert image.job["token"].decode() == model.holder
            assert (image.job["progress"] == b"1") == model.progress
            assert passes(int(image.job["lease_end_ms"]) - image.now, model.lease_end - model.now)
        assert passes(int(image.job["since_ms"]) - image.now, model.since - model.now)
        assert ("started_ms" in image.job) == model.begun
        assert image.job.get("ckpt:answer", b"").decode() == model.checkpoint
        assert (record.input is None) == (model.status in ENDED)
        _compare_expiries(image, model)

    async def restore(self, image: Image) -> None:
        """Restore the state of this snapshot."""
        commands: list[tuple[object, ...]] = [("DEL", self._job, self._log, self._kept)]
        commands.append(("ZREM", self._index, self._stream.id))
        if image.job:
            flat = [item for pair in image.job.items() for item in pair]
            commands += [("HSET", self._job, *flat), ("PEXPIRE", self._job, image.job_ttl)]
        if image.kept:
            flat = [item for pair in image.kept.items() for item in pair]
            commands += [("HSET", self._kept, *flat), ("PEXPIRE", self._kept, image.kept_ttl)]
        if image.log:
            commands.append(("SET", self._log, image.log, "PX", image.log_ttl))
        if image.listed is not None:
            commands.append(("ZADD", self._index, image.listed, self._stream.id))
            commands.append(("PEXPIRE", self._index, image.index_ttl))
        await self._redis.call_all(commands)

    async def cut(self, log: bytes, last_id: str) -> None:
        await self._redis.call_all(
            [("SET", self._log, log, "KEEPTTL"), ("HSET", self._job, "last_id", last_id)]
        )

    async def advance(self, ms: int) -> None:
        """Move the clock forward or back: all times of the stream come nearer, or move away."""
        fields = ("lease_end_ms", "asked_ms", "since_ms", "created_ms")
        instants, listed = await self._redis.call_all(
            [("HMGET", self._job, *fields), ("ZSCORE", self._index, self._stream.id)]
        )
        commands: list[tuple[object, ...]] = [
            ("HINCRBY", self._job, name, -ms)
            for name, value in zip(fields, instants, strict=True)
            if value is not None
        ]
        if listed is not None:
            commands.append(("ZINCRBY", self._index, -ms, self._stream.id))
        if commands:
            await self._redis.call_all(commands)

    async def expire(self, *, whole: bool) -> None:
        await self._redis.call("DEL", self._log, self._kept, *([self._job] if whole else []))

    async def remove(self) -> None:
        await self._redis.call_all(
            [("DEL", self._job, self._log, self._kept), ("ZREM", self._index, self._stream.id)]
        )


def _compare_expiries(image: Image, model: Store) -> None:
    """Check the expiries: 60 s until confirm or claim, then a long time, and the retention after the end. The
    record outlives the log."""
    if not model.confirmed and model.status == "queued":
        assert image.job_ttl <= 60_000
        return
    kept = KEEP_MS if model.status in ENDED else OPEN_MS
    assert kept + TOMBSTONE_MS - 60_000 <= image.job_ttl <= kept + TOMBSTONE_MS
    if image.log:
        assert kept - 60_000 <= image.log_ttl < image.job_ttl
    if image.kept:
        assert KEEP_MS - 60_000 <= image.kept_ttl <= KEEP_MS
    if image.listed is not None:
        assert image.index_ttl + UNIT_MS > image.job_ttl, "the index does not outlive its member"


def _hash(flat: list[bytes]) -> dict[str, bytes]:
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}


def passes(found: int, expected: int) -> bool:
    """Return whether `found` is the expected remaining time. The real clock runs on a little; the model's
    does not."""
    return expected - UNIT_MS < found <= expected
