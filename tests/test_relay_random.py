"""The relay under everything at once: each reader's bytes are the log's, over all its connections.

Hundreds of readers join, leave and resume at random, slow ones among them, while workers write and take
over, subscriber connections are cut, and publishes are dropped and doubled. The seed is printed; set it
in SEED to run the same choices again.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, aclosing

import pytest
from redis.asyncio import Redis

from gateway.protocol import Cursor, sse
from gateway.protocol.errors import StoreUnavailable
from tests.support.following import Following, Stream, following, text
from tests.support.proxy import Proxy

SEED: int | None = None
STREAMS, READERS, BLOCKS = 6, 300, 120
DEADLINE_SECONDS = 90


class Wanderer:
    """A reader that comes and goes; `got` is what all its connections gave, joined."""

    def __init__(self, stream: Stream, chance: random.Random) -> None:
        self.stream = stream
        self.got = b""
        self.connections = 0
        self._chance = chance
        self._slow = chance.random() < 0.2

    async def run(self, gateways: list[Following]) -> None:
        """Until the terminal event."""
        while not self._ended():
            await asyncio.sleep(self._chance.uniform(0, 0.5))
            self.connections += 1
            try:
                async with asyncio.timeout(self._patience()):
                    await self._connection(self._chance.choice(gateways))
            except (TimeoutError, StoreUnavailable):
                continue  # cut off in the middle of whatever it was doing

    async def _connection(self, gateway: Following) -> None:
        after = Cursor.parse(self._last()) if self.got else None
        chunks_left = self._chance.choice((1, 3, 20, 1000, 1000))
        async with aclosing(gateway.relay.follow(self.stream.id, after)) as chunks:
            async for chunk in chunks:
                if chunk != sse.HEARTBEAT:
                    self.got += chunk
                chunks_left -= 1
                if chunks_left <= 0:
                    return
                if self._slow:
                    await asyncio.sleep(self._chance.uniform(0, 0.1))

    def _patience(self) -> float | None:
        return self._chance.choice((0.05, 0.5, None, None))

    def _last(self) -> str:
        frame = sse.split_frames(self.got[self.got.rfind(sse.NEXT_FRAME, 0, -2) + 1 :].lstrip(b"\n"))[-1]
        return frame.split(b"\n")[0].removeprefix(sse.ID_PREFIX).decode()

    def _ended(self) -> bool:
        return bool(self.got) and sse.is_terminal(sse.split_frames(self.got[self.got.rfind(b"id: ") :])[-1])


async def write(stream: Stream, chance: random.Random) -> None:
    """Blocks of one or several events, some large, at changing speeds; now and then another worker's."""
    for number in range(BLOCKS):
        size = chance.choice((1, 1, 1, 10, 1000, 30_000))
        deltas = [f"{number}." + "x" * size for _ in range(chance.choice((1, 1, 2, 5)))]
        await stream.write(*map(text, deltas))
        if chance.random() < 0.03:
            await stream.take_over()
        await asyncio.sleep(chance.choice((0, 0, 0.01, 0.1)))
    await stream.end()


async def cutting(proxies: list[Proxy], chance: random.Random) -> None:
    while True:
        await asyncio.sleep(chance.uniform(0.2, 1.0))
        chance.choice(proxies).cut("hub")


def unreliable(chance: random.Random, waiting: list[bytes]) -> list[bytes]:
    """What becomes of the first that waits: most pass, some are lost, doubled or overtaken."""
    match chance.random():
        case luck if luck < 0.05:
            waiting.pop(0)
            return []
        case luck if luck < 0.10:
            return [waiting[0], waiting.pop(0)]
        case luck if luck < 0.15:
            return []  # the next one comes first
        case _:
            return [waiting.pop() for _ in range(len(waiting))]


def faulty(proxy: Proxy, chance: random.Random) -> None:
    waiting: list[bytes] = []

    def fault(message: bytes) -> list[bytes]:
        waiting.append(message)
        return unreliable(chance, waiting)

    proxy.fault = fault


@pytest.mark.slow
async def test_whatever_happens_each_readers_bytes_are_the_logs(redis_url: str, redis: Redis) -> None:
    seed = SEED if SEED is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    asyncio.get_running_loop().set_debug(False)  # hundreds of thousands of callbacks
    async with AsyncExitStack() as stack, asyncio.timeout(DEADLINE_SECONDS):
        proxies = [await stack.enter_async_context(Proxy(redis_url)) for _ in range(2)]
        gateways = []
        for proxy in proxies:
            faulty(proxy, random.Random(chance.random()))
            gateways.append(
                await stack.enter_async_context(
                    following(redis_url, hub_url=proxy.url, heartbeat=1.5, reader_bytes=20_000, max_age=3)
                )
            )
        streams = [await Stream.create(gateways[0].log) for _ in range(STREAMS)]
        readers = [
            Wanderer(streams[number % STREAMS], random.Random(chance.random())) for number in range(READERS)
        ]
        cutter = asyncio.create_task(cutting(proxies, random.Random(chance.random())))
        async with asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(write(stream, random.Random(chance.random())))
            for reader in readers:
                group.create_task(reader.run(gateways))
        cutter.cancel()
        assert [gateway.hub.readers for gateway in gateways] == [0, 0]
    for reader in readers:
        assert reader.got == await reader.stream.log_bytes(redis)
    assert sum(reader.connections for reader in readers) > 2 * READERS
    assert all(proxy.accepted["hub"] > 1 for proxy in proxies)
