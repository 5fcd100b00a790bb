"""The log on a real Redis: its keys and their expiry times, its clock, and reads in pieces of any size."""

from __future__ import annotations

import asyncio
import binascii
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

import gateway.store.log
from gateway import protocol
from gateway.protocol import Cursor, sse
from gateway.protocol.errors import CursorLost
from gateway.store.log import Log, bucket
from gateway.store.record import Head
from gateway.streams.status import fold_of
from tests.model.streams import (
    CANCEL_TAG,
    DONE,
    KEEP_MS,
    LEASE_MS,
    OPEN_MS,
    START_TAG,
    TOMBSTONE_MS,
    Stream,
    ids_of,
    last_id_of,
    open_log,
    said,
    start_frame,
    text_of,
)


@pytest.fixture
async def log(redis_url: str) -> AsyncIterator[Log]:
    async with open_log(redis_url) as log:
        yield log


async def end_lease(redis: Redis, stream: Stream) -> None:
    await redis.hset(stream.keys[0], "lease_end_ms", 1)


async def test_fault_30_the_record_outlives_the_log_as_a_tombstone(log: Log, redis: Redis) -> None:
    stream = await Stream.create(log, keep_ms=2000, tombstone_ms=KEEP_MS)
    await (await stream.pen()).write(DONE, status="done")
    job, text, _ = stream.keys
    assert 0 < await redis.pttl(text) <= 2000
    assert KEEP_MS < await redis.pttl(job) <= KEEP_MS + 2000
    await redis.delete(text)
    record, length = await log.record(stream.id)
    assert (record is not None and record.ended, length) == (True, 0)
    await redis.delete(job)
    assert await log.record(stream.id) == (None, 0)


async def test_fault_17_a_running_stream_does_not_expire(log: Log, redis: Redis) -> None:
    stream = await Stream.create(log)
    pen = await stream.pen()
    for renew in (b"", None):
        for key in stream.keys:
            await redis.pexpire(key, OPEN_MS // 3)  # Two thirds of the time have passed.
        await redis.hincrby(stream.keys[0], "lease_end_ms", -2000)  # The lease has become shorter, too.
        await (pen.write(said("a")) if renew is None else pen.put(pen.end, renew))
        job, text, index = [await redis.pttl(key) for key in stream.keys]
        assert OPEN_MS - 60_000 < text <= OPEN_MS
        assert OPEN_MS + TOMBSTONE_MS - 60_000 < job <= OPEN_MS + TOMBSTONE_MS
        assert index > OPEN_MS


class TestRead:
    async def written(self, log: Log, redis: Redis) -> tuple[Stream, bytes]:
        stream = await Stream.create(log)
        pen = await stream.pen()
        for size in (0, 1, 7, 900, 30, *[3000] * 8, 2):
            await pen.write(said("x" * size), said("\n\nid: 0-5a5a\n"))
        await pen.write(DONE, status="done")
        return stream, await text_of(redis, stream)

    @pytest.mark.parametrize("limit", [32, 33, 100, 101, 1000, 4096, 65536])
    async def test_pieces_are_the_log_from_any_cursor(self, log: Log, redis: Redis, limit: int) -> None:
        stream, whole = await self.written(log, redis)
        begin = 0
        cursors = [None, *map(Cursor.parse, ids_of(whole))]
        for cursor, frame in zip(cursors, [b"", *sse.split_frames(whole)], strict=True):
            begin += len(frame)
            joined, after, at_end = b"", cursor, False
            while not at_end:
                piece = await log.read(stream.id, after, limit)
                # A frame of 3 kB may need a piece that is larger than the limit.
                assert len(piece.frames) <= max(limit, 4 * 4000)
                assert piece.final == (str(piece.last) == last_id_of(whole))
                joined, after, at_end = joined + piece.frames, piece.last, piece.at_end
            assert joined == whole[begin:]
            assert str(after) == last_id_of(whole)

    async def test_fault_22_a_cursor_that_is_not_in_the_log_is_lost(self, log: Log, redis: Redis) -> None:
        stream, whole = await self.written(log, redis)
        other = await Stream.create(log)
        await (await other.pen(7)).write(said("o"))
        last = Cursor.parse(last_id_of(whole))
        wrong = [
            "0-beef",  # the tag of another log
            f"{last.offset + 1}-0001",  # inside an event
            f"{len(whole)}-0001",  # where the next event would begin
            f"{len(whole) + 1}-0001",  # after the end of the log
            "9999999999-0001",
            f"00-{START_TAG}",  # the number 0 in another spelling
            *[name for name in ids_of(await text_of(redis, other)) if not name.startswith("0-")],
        ]
        for cursor in wrong:
            with pytest.raises(CursorLost):
                await log.read(stream.id, Cursor.parse(cursor))

    async def test_a_text_that_looks_like_a_frame_is_none(self, log: Log, redis: Redis) -> None:
        stream, whole = await self.written(log, redis)
        at = whole.index(b"id: 0-5a5a", 1)
        with pytest.raises(CursorLost):
            await log.read(stream.id, Cursor.parse(f"{at}-5a5a"))

    async def test_the_end_of_a_log_is_told_and_its_terminal_event(self, log: Log) -> None:
        stream = await Stream.create(log)
        first = await log.read(stream.id, None)
        assert (str(first.last), first.final, first.at_end) == (f"0-{START_TAG}", False, True)
        again = await log.read(stream.id, first.last)
        assert (again.frames, again.last, again.final, again.at_end) == (b"", first.last, False, True)
        await log.cancel(stream.id, CANCEL_TAG)
        last = await log.read(stream.id, first.last)
        assert (last.final, last.at_end) == (True, True)
        assert (await log.read(stream.id, last.last)).final

    async def test_of_an_unknown_stream_is_empty(self, log: Log) -> None:
        piece = await log.read(protocol.new_stream_id(), None)
        assert (piece.frames, piece.last, piece.at_end) == (b"", None, True)

    async def test_heads_are_the_last_ids_and_what_is_left_of_the_leases(self, log: Log) -> None:
        stream, queued = await Stream.create(log), await Stream.create(log)
        pen = await stream.pen()
        await pen.write(said("a"))
        head, waiting, gone = await log.heads([stream.id, queued.id, protocol.new_stream_id()])
        assert (head.last_id, waiting.lease_left_ms, gone) == (last_id_of(pen.wrote), None, Head(""))
        assert head.lease_left_ms is not None
        assert 0 < head.lease_left_ms <= LEASE_MS

    async def test_fault_31_a_lease_that_is_over_or_too_far_away_leaves_nothing(
        self, log: Log, redis: Redis
    ) -> None:
        stream = await Stream.create(log)
        await stream.pen()
        for moved in (-1, LEASE_MS + 60_000):
            await redis.hset(stream.keys[0], "lease_end_ms", await log.now_ms() + moved)
            assert (await log.heads([stream.id]))[0].lease_left_ms == 0


SLOTS = 16384


def slot(key: str) -> int:
    """Return the key's slot: CRC16 (XMODEM) of the text in the first braces, modulo 16384.

    This follows the Redis Cluster specification.
    """
    return binascii.crc_hqx(key[key.index("{") + 1 : key.index("}")].encode(), 0) % SLOTS


def test_the_slot_is_computed_as_the_specification_says() -> None:
    assert slot("{123456789}") == 0x31C3


async def test_every_key_that_a_script_touches_is_of_one_slot(log: Log, redis: Redis) -> None:
    key = protocol.idempotency_hash("anonymous", "key")
    stream = Stream(log, protocol.new_stream_id(key))
    async with redis.monitor() as ear:
        for _ in range(2):
            await stream.create_again(key=key, body="b")
        await Stream(log, protocol.new_stream_id(key)).create_again(key=key, body="b")
        await log.confirm(stream.id, LEASE_MS)
        await log.ask(stream.id, LEASE_MS)
        pen = await stream.pen()
        await pen.write(said("a"), **{"ckpt:answer": "1"})
        await pen.put(len(start_frame(stream.id)), pen.wrote)
        await pen.release()
        await log.cancel(stream.id, CANCEL_TAG)
        await redis.echo("over")
        seen = []
        while (command := await ear.next_command())["command"] != "ECHO over":
            seen.append(command)
    inside = [each["command"].split(" ") for each in seen if each["client_type"] == "lua"]
    keyed = [words for words in inside if words[0] not in ("TIME", "PUBLISH")]
    assert len(keyed) > 40
    assert {words[0] for words in keyed} >= {"HSET", "APPEND", "GETRANGE", "PEXPIRE", "ZADD", "ZREM", "GET"}
    assert {slot(words[1]) for words in keyed} == {slot(f"{{{bucket(stream.id)}}}")}


async def test_only_redis_tells_the_time(log: Log) -> None:
    before = await log.now_ms()
    stream = await Stream.create(log, created_ms=1)
    pen = await stream.pen()
    await pen.write(DONE, status="done")
    after = await log.now_ms()
    record, _ = await log.record(stream.id)
    assert record is not None
    assert record.started_ms is not None
    assert record.ended_ms is not None
    assert before <= pen.claim.now_ms <= record.ended_ms <= after
    assert record.started_ms == pen.claim.now_ms


def test_fault_31_the_log_knows_no_clock_of_its_own() -> None:
    package = Path(gateway.store.log.__file__).parents[1]
    for name in ("store/log", "store/record", "protocol/events"):
        source = (package / f"{name}.py").read_text()
        assert not re.search(r"^(import|from) time|datetime\.(now|today|utcnow)", source, re.MULTILINE)


async def test_a_server_that_forgot_the_scripts_is_told_them_again(log: Log, redis: Redis) -> None:
    stream = await Stream.create(log)
    await redis.script_flush()
    assert (await (await stream.pen()).write(said("a"))).word == "ok"


async def test_fault_30_a_read_of_a_log_that_is_gone_is_at_its_end(log: Log) -> None:
    """A log may expire or be lost after its record was read and before this read.

    The read reports the end of the log, so no reader reads on forever.
    """
    gone = protocol.new_stream_id()
    piece = await log.read(gone, None)
    assert (piece.frames, piece.last, piece.at_end, piece.final) == (b"", None, True, False)
    async with asyncio.timeout(5):
        assert (await fold_of(log, gone)).last_id == ""
