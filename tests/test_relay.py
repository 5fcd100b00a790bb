"""Join, read, follow: what one reader gets, and what it leaves behind. Real Redis."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from redis.asyncio import Redis

from gateway.protocol import Cursor, sse
from gateway.protocol.errors import StoreUnavailable
from tests.support.following import Following, Reader, Stream, feeds, following, reading, text, until
from tests.support.proxy import Proxy

KIB = 1024


def ids(frames: bytes) -> list[str]:
    return [message.id for message in sse.Decoder().feed(frames)]


async def collected(f: Following, stream: Stream, after: str = "") -> bytes:
    async with reading(f.relay, stream, after=Cursor.parse(after) if after else None) as [reader]:
        return await reader.all()


async def test_an_ended_stream_is_given_whole_and_from_any_cursor(redis_url: str, redis: Redis) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        await stream.write(*map(text, "ab"))
        await stream.texts("c", "x" * 200 * KIB, "é\u2028\0", "d")
        await stream.end()
        whole = await stream.log_bytes(redis)
        assert await collected(f, stream) == whole
        for event_id in ids(whole):
            rest = await collected(f, stream, event_id)
            at = whole.index(f"id: {event_id}\n".encode())
            assert rest == whole[whole.index(sse.FRAME_END, at) + 2 :]


@pytest.mark.parametrize("lie", ["0-zzzz", "5-{tag}", "{end}-{tag}", "9999999999-{tag}", "0-{other}"])
async def test_fault_22_a_cursor_that_lies_is_told_log_lost_and_given_everything(
    redis_url: str, redis: Redis, lie: str
) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        await stream.texts("a")
        await stream.end()
        whole = await stream.log_bytes(redis)
        tag = whole.split(b"\n")[0][-4:].decode()
        other = f"{int(tag, 16) ^ 1:04x}"
        cursor = lie.format(tag=tag, end=len(whole), other=other).replace("zzzz", other)
        assert await collected(f, stream, cursor) == sse.LOG_LOST + whole


async def test_fault_8_a_tail_lost_and_written_anew_is_told_to_an_attached_reader(
    redis_url: str, redis: Redis
) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        kept_id = await stream.texts("kept")
        kept = await stream.log_bytes(redis)
        async with reading(f.relay, stream) as [reader]:
            await stream.texts("lost", "lost too")
            before = await stream.log_bytes(redis)
            await reader.has(before)
            job, log, _ = f.log.keys(stream.id)
            # The store comes back without its last second.
            await redis.eval(
                "redis.call('SET', KEYS[1], ARGV[1], 'KEEPTTL')"
                "redis.call('HSET', KEYS[2], 'last_id', ARGV[2])",
                2,
                *(log, job, kept, kept_id),
            )
            await stream.claim_again()
            await stream.texts("other", "text")
            await stream.end()
            after = await stream.log_bytes(redis)
            assert after.startswith(kept)
            assert await reader.all() == before + sse.LOG_LOST + after


async def test_a_log_that_is_gone_ends_its_readers(redis_url: str, redis: Redis) -> None:
    async with following(redis_url) as f:
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream) as [reader]:
            whole = await stream.log_bytes(redis)
            await reader.has(whole)
            await redis.delete(*f.log.keys(stream.id))
            assert await reader.all() == whole + sse.LOG_LOST
        assert await collected(f, stream) == b""


async def test_fault_13_a_reader_that_takes_nothing_has_bounded_memory_and_gets_every_byte_later(
    redis_url: str, redis: Redis
) -> None:
    bound, block = 64 * KIB, 10 * KIB
    async with following(redis_url, reader_bytes=bound) as f:
        stream = await Stream.create(f.log)
        async with aclosing(f.relay.follow(stream.id, None)) as slow, reading(f.relay, stream) as [quick]:
            got = await anext(slow)
            [feed] = feeds(f.hub)
            await quick.has(got)
            largest = 0
            for _ in range(100):
                await stream.texts("x" * block)
                held = [sum(len(b.frames) for b in reader._blocks) for reader in feed.readers]
                largest = max(largest, *held)
            await stream.end()
            assert await quick.all() == await stream.log_bytes(redis)  # others are not slowed
            assert block < largest <= bound + 2 * block
            [waiting] = feed.readers
            assert waiting._size == 0
            async for chunk in slow:
                got += chunk
            assert got == await stream.log_bytes(redis)


async def test_heartbeats_stand_between_frames_and_only_in_silence(redis_url: str, redis: Redis) -> None:
    async with following(redis_url, heartbeat=0.1) as f:
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream) as [reader]:
            await reader.has(await stream.log_bytes(redis))
            await until(lambda: reader.heartbeats >= 2)
            await stream.texts("a")
            await stream.end()
            assert await reader.all() == await stream.log_bytes(redis)


async def test_a_connection_of_its_age_closes_at_a_frames_end_and_can_be_continued(
    redis_url: str, redis: Redis
) -> None:
    async with following(redis_url, max_age=0.3) as f:
        stream = await Stream.create(f.log)
        got, last = b"", ""
        for number in range(3):
            cursor = Cursor.parse(last) if last else None
            async with reading(f.relay, stream, after=cursor) as [reader]:
                while not reader.task.done():
                    await stream.texts(str(number))
                    await asyncio.sleep(0)
                part = await reader.all()
            assert part.endswith(sse.FRAME_END)
            assert b"done" not in part
            last = ids(part)[-1]
            got += part
        await stream.end()
        got += await collected(f, stream, last)
        assert got == await stream.log_bytes(redis)


async def nothing_left(f: Following, tasks: set[asyncio.Task[object]], redis: Redis) -> None:
    assert f.hub.readers == 0
    assert not list(feeds(f.hub))
    assert asyncio.all_tasks() <= tasks
    async with asyncio.timeout(10):
        while await redis.pubsub_channels("live:*"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("when", ["before the first event", "during replay", "live"])
@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_fault_14_a_reader_gone_leaves_nothing_behind(
    redis_url: str, redis: Redis, when: str, how: str
) -> None:
    async with Proxy(redis_url) as proxy, following(redis_url, hub_url=proxy.url) as f:
        stream, other = await Stream.create(f.log), await Stream.create(f.log)
        await stream.texts(*["x" * 60 * KIB] * 4)
        async with reading(f.relay, other) as [up]:  # so that the connections are up
            await up.has(await other.log_bytes(redis))
        await nothing_left(f, asyncio.all_tasks(), redis)
        tasks = asyncio.all_tasks()
        chunks = f.relay.follow(stream.id, None)
        if when == "before the first event":
            proxy.hold("hub", "answers")
        else:
            got = await anext(chunks)
            while when == "live" and got != await stream.log_bytes(redis):
                got += await anext(chunks)
        if how == "closed" and when != "before the first event":
            await chunks.aclose()
        else:
            waiting = asyncio.ensure_future(anext(chunks)) if when != "during replay" else None
            if waiting is not None:
                await until(lambda: f.hub.readers == 1)
                waiting.cancel()
                await asyncio.wait([waiting])
            await chunks.aclose()
        proxy.release()
        await nothing_left(f, tasks, redis)


async def test_a_store_that_is_away_is_unavailable(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, following(proxy.url, hub_url=redis_url) as f:
        stream = await Stream.create(f.log)
        async with reading(f.relay, stream) as [attached]:
            await until(lambda: bool(attached.frames))
            proxy.upstream = f"{redis_url}.not-there"
            proxy.cut("commands")
            late = Reader(f.relay, stream)
            with pytest.raises(StoreUnavailable):
                await late.all()
            assert not attached.task.done()  # nothing was lost to it yet
            proxy.upstream = redis_url
            await stream.end()
            assert (await attached.all()).endswith(b"\n\n")
