"""Readers whose sockets the relay writes directly: exact bytes, no task while idle, and clean ends."""

from __future__ import annotations

import asyncio
import re

import pytest
from redis.asyncio import Redis

from gateway.protocol import Cursor, sse
from gateway.web.direct_reader import DirectReader
from tests.support.following import Following, Stream, feeds, following, until

BLOCK = "x" * 10_000


class Pipe(asyncio.Transport):
    """The socket of a reader. It stores what is written, and a test can make it slow."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        assert not self.aborted
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    @property
    def body(self) -> bytes:
        """Return the content of the HTTP chunks. Each chunk must be complete (RFC 9112, 7.1)."""
        body, rest = b"", self.written
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) :]
            assert rest.startswith(b"\r\n")
            rest = rest[2:]
        return body

    @property
    def frames(self) -> bytes:
        """Return the body without heartbeats and without its first line, `retry:`."""
        told = re.sub(rb"^:\n", b"", self.body, flags=re.MULTILINE)
        retry, _, frames = told.partition(b"\n")
        assert re.fullmatch(rb"(retry: [0-9]+)?", retry)
        return frames


class Direct:
    """One reader that has begun to read a stream."""

    def __init__(self, f: Following, stream_id: str, after: Cursor | None = None) -> None:
        self.pipe = Pipe()
        self.ends: list[tuple[str, int]] = []
        self.reader = DirectReader(f.relay, stream_id, after, lambda *end: self.ends.append(end))
        self.reader.begin(lambda protocol: self.pipe)

    @property
    def rests(self) -> bool:
        """Return whether the reader has no task and the relay writes to it at once."""
        reader = self.reader._reader
        return self.reader._task is None and reader is not None and reader._write is not None

    async def has(self, expected: bytes) -> None:
        await until(lambda: len(self.pipe.frames) >= len(expected))
        assert self.pipe.frames == expected


async def test_a_whole_stream_is_the_log_and_its_end_closes_cleanly(redis_url: str, redis: Redis) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        direct = Direct(f, stream.id)
        await direct.has(await stream.log_bytes(redis))
        for _ in range(3):
            await until(lambda: direct.rests)
            assert not [task for task in asyncio.all_tasks() if task.get_name() == "reader"]
            await stream.texts("a", "b")
            await direct.has(await stream.log_bytes(redis))
        await stream.end()
        await until(lambda: bool(direct.ends))
        assert direct.pipe.frames == await stream.log_bytes(redis)
        assert direct.pipe.written.endswith(b"\r\n0\r\n\r\n")
        assert direct.pipe.closed
        assert direct.ends == [("terminal", len(direct.pipe.body))]
        assert f.hub.readers == 0
        seen = Cursor.parse(re.findall(rb"id: (.*)\n", direct.pipe.frames)[1].decode())
        later = Direct(f, stream.id, seen)
        await until(lambda: bool(later.ends))
        assert direct.pipe.frames.endswith(later.pipe.frames)
        assert len(sse.split_frames(later.pipe.frames)) == len(sse.split_frames(direct.pipe.frames)) - 2


async def test_a_socket_that_is_behind_is_not_written_to_and_catches_up_exactly(
    redis_url: str, redis: Redis
) -> None:
    async with following(redis_url, reader_bytes=25_000) as f:
        stream = await Stream.create(f.log)
        direct, other = Direct(f, stream.id), Direct(f, stream.id)
        await until(lambda: direct.rests and other.rests)
        direct.reader.pause_writing()
        await stream.texts(BLOCK)
        # This block is passed to the socket and waits there.
        await until(lambda: BLOCK.encode() in direct.pipe.written)
        held = len(direct.pipe.written)
        for _ in range(9):  # This is more than the reader may have waiting.
            await stream.texts(BLOCK)
        await other.has(await stream.log_bytes(redis))
        assert len(direct.pipe.written) == held
        direct.reader.resume_writing()
        await direct.has(await stream.log_bytes(redis))
        await until(lambda: direct.rests)
        await stream.end()
        await until(lambda: bool(direct.ends))
        assert direct.pipe.frames == other.pipe.frames == await stream.log_bytes(redis)


async def test_heartbeats_reach_a_reader_that_rests_before_its_first_frame_too(redis_url: str) -> None:
    async with following(redis_url, heartbeat=1.0) as f:
        stream = await Stream.create(f.log)
        last = Cursor.parse((await f.log.heads([stream.id]))[0].last_id)
        direct = Direct(f, stream.id, last)  # The reader has already received everything.
        await until(lambda: direct.rests)
        await until(lambda: direct.pipe.body == sse.HEARTBEAT)
        await stream.texts("a")
        await until(lambda: b'"a"' in direct.pipe.body)
        assert re.fullmatch(rb"(:\n)+retry: [0-9]+\nid: .*", direct.pipe.body, re.DOTALL)


@pytest.mark.parametrize("resting", [True, False])
async def test_a_reader_that_goes_is_let_go_of_at_once(redis_url: str, resting: bool) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        direct = Direct(f, stream.id)
        if resting:
            await until(lambda: direct.rests)
        else:
            direct.reader.pause_writing()
            await until(lambda: f.hub.readers == 1 and bool(direct.pipe.written))
        direct.reader.connection_lost(None)
        assert f.hub.readers == 0
        assert [why for why, _ in direct.ends] == ["gone"]
        await until(lambda: direct.reader._task is None)
        await stream.texts("nobody hears it")


async def test_a_reader_that_takes_nothing_more_is_cut(redis_url: str) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        direct = Direct(f, stream.id)
        direct.reader.pause_writing()
        await until(lambda: bool(direct.pipe.written))
        [reader] = next(iter(feeds(f.hub))).readers
        assert reader.is_sending
        reader.cut()
        await until(lambda: direct.pipe.aborted)
        assert [why for why, _ in direct.ends] == ["stalled"]
        assert f.hub.readers == 0


async def test_a_connection_ends_cleanly_at_its_age_and_when_the_process_stops(redis_url: str) -> None:
    async with following(redis_url, max_age=0.05) as f:
        direct = Direct(f, (await Stream.create(f.log)).id)
        await until(lambda: bool(direct.ends))
        assert direct.ends[0][0] == "age"
        assert direct.pipe.closed
    async with following(redis_url) as f:
        direct = Direct(f, (await Stream.create(f.log)).id)
        await until(lambda: direct.rests)
        await f.hub.close()
        assert direct.ends[0][0] == "stopping"
        assert direct.pipe.written.endswith(b"0\r\n\r\n")


async def test_who_finds_no_room_or_no_store_is_told_when_to_come_back(redis_url: str) -> None:
    async with following(redis_url, most=1) as f:
        stream = await Stream.create(f.log)
        first = Direct(f, stream.id)
        second = Direct(f, stream.id)
        await until(lambda: bool(second.ends))
        assert second.ends[0][0] == "full"
        assert re.fullmatch(rb"retry: [0-9]+\n", second.pipe.body)
        assert second.pipe.closed
        await until(lambda: first.rests)
    async with following(redis_url) as f:
        await f.hub.close()
        none = Direct(f, stream.id)
        await until(lambda: bool(none.ends))
        assert none.ends[0][0] == "store"


async def test_a_connection_that_is_gone_before_it_could_be_given_is_no_reader(redis_url: str) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        ends: list[tuple[str, int]] = []
        DirectReader(f.relay, stream.id, None, lambda *end: ends.append(end)).begin(lambda protocol: None)
        assert ends == [("gone", 0)]
        assert f.hub.readers == 0
