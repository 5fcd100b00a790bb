"""A producer in a separate process. It makes streams and appends to them with `gateway.store`, as a worker
does.

`python -m bench.produce REDIS_URL STREAMS RATE SECONDS PATHS READY`: write the path of each stream to the
file PATHS, wait for the file READY, then write RATE events a second to every stream. Each stream has at most
one append in flight; events that become due in the meantime go into the next append, as in the worker's
writer. LangChain is not used, because it would limit the rate. Prints one line of JSON: events, appends,
seconds, CPU seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import uvloop

from gateway import protocol
from gateway.protocol import sse
from gateway.redis.connection import Connection
from gateway.runtime.settled import settle
from gateway.store.appender import ClaimAppends
from gateway.store.log import Log
from gateway.store.record import Batch, Claim

KEEP_MS = 600_000
TICK_SECONDS = 0.001
CREATED = "2026-01-01T00:00:00Z"


@dataclass(slots=True)
class Stream:
    """The producer's state of one stream: its log end and the events not yet sent."""

    claim: Claim
    tag: str
    end: int
    sent: int = 0
    frames: list[bytes] = field(default_factory=list)
    last: str = ""
    busy: bool = False
    appends: int = 0
    turns: ClaimAppends = field(init=False)
    heard: Callable[[bool], None] = field(init=False)

    def say(self) -> None:
        """Add one event of about 75 bytes that contains the present time."""
        self.sent += 1
        self.last = f"{self.end}-{self.tag}"
        token = b'{\\"ts\\":%d,\\"seq\\":%d,\\"token\\":\\"abcdefgh\\"}' % (time.time_ns(), self.sent)
        data = b'{"deployment":"m","delta_content":"%b","stage":"chat"}' % token
        self.frames.append(b"id: %b\ndata: %b\n\n" % (self.last.encode(), data))
        self.end += len(self.frames[-1])

    def next_batch(self) -> Batch:
        """Return the waiting events as a batch for the appender."""
        frames, self.frames = b"".join(self.frames), []
        return Batch(self.end - len(frames), frames, self.last, "", {})

    def batch_sent(self, batch: Batch, stands: bool) -> None:
        """Handle the appender's result for a batch."""
        self.heard(stands)


async def made(log: Log) -> Stream:
    """Create and claim a new stream."""
    stream_id, first = protocol.new_stream_id(), protocol.start("bench", "chat", ["chat"], CREATED)
    fields = {
        "owner": protocol.ANONYMOUS,
        "chain": "chat",
        "version": protocol.VERSION,
        "created_ms": 1,
        "keep_ms": KEEP_MS,
        "tombstone_ms": KEEP_MS,
        "last_id": "0-0000",
    }
    await log.create(stream_id, fields, sse.encode(first, 0, "0000"))
    await log.confirm(stream_id, KEEP_MS)
    claim = (await log.claim(stream_id, protocol.new_token(), KEEP_MS)).claim
    assert claim is not None
    await log.append(
        claim, claim.log_end, b"", claim.record.last_id, KEEP_MS
    )  # from now on the server has the script
    stream = Stream(claim, claim.tag, claim.log_end)
    stream.turns = log.appends(claim, KEEP_MS, stream)
    return stream


class Producer:
    """Append to streams, with one append in flight for each stream. Newer events go into the next append."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._failed = False
        self._idle = asyncio.Event()

    def append(self, stream: Stream) -> None:
        """Send the waiting events, unless an append is in flight."""
        if stream.busy or not stream.frames:
            return
        stream.heard = partial(self._heard, stream)
        stream.turns.ask()
        stream.busy = True
        self._in_flight += 1

    async def finish(self) -> None:
        """Wait until no append is in flight. Raises RuntimeError if an append has failed."""
        while self._in_flight and not self._failed:
            self._idle.clear()
            await self._idle.wait()
        if self._failed:
            raise RuntimeError("an append has failed")

    def _heard(self, stream: Stream, stands: bool) -> None:
        self._failed |= not stands
        stream.appends += 1
        stream.busy = False
        self._in_flight -= 1
        self.append(stream)
        if self._failed or not self._in_flight:
            self._idle.set()


@asynccontextmanager
async def beating() -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Yield a function that waits for the next tick. The event loop's own timers take up to two milliseconds
    for one."""
    if sys.platform != "linux" or sys.version_info < (3, 13):
        yield partial(asyncio.sleep, TICK_SECONDS)
        return
    beats = asyncio.Semaphore(0)
    clock = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK)
    os.timerfd_settime(clock, initial=TICK_SECONDS, interval=TICK_SECONDS)
    loop = asyncio.get_running_loop()

    def beat() -> None:
        os.read(clock, 8)
        if beats.locked():  # merge missed ticks into one
            beats.release()

    loop.add_reader(clock, beat)
    try:
        yield beats.acquire
    finally:
        loop.remove_reader(clock)
        os.close(clock)


async def produce(streams: list[Stream], rate: float, seconds: float) -> None:
    """Produce at this rate. The streams take turns, so their events are spread evenly over the interval."""
    producer = Producer()
    every, count = 1 / (rate * len(streams)), int(rate * seconds) * len(streams)
    sent, began = 0, time.perf_counter()
    async with beating() as beat:
        while sent < count:
            due = min(count, int((time.perf_counter() - began) / every) + 1)
            for number in range(sent, due):
                stream = streams[number % len(streams)]
                stream.say()
                producer.append(stream)
            sent = due
            await beat()
    await producer.finish()


async def append(log: Log, stream: Stream, status: str = "") -> None:
    """Append the waiting events."""
    frames, stream.frames = b"".join(stream.frames), []
    position = stream.end - len(frames)
    answer = await log.append(stream.claim, position, frames, stream.last, KEEP_MS, status=status)
    assert answer.word == "ok", answer


async def finish(log: Log, stream: Stream) -> None:
    """Append the terminal event."""
    done = protocol.done(finish_reason="stop", usage={}, attempts=1, duration_ms=1)
    stream.last = f"{stream.end}-{stream.tag}"
    stream.frames.append(sse.encode(done, stream.end, stream.tag))
    stream.end += len(stream.frames[-1])
    await append(log, stream, "done")


async def main(url: str, count: int, rate: float, seconds: float, paths: Path, ready: Path) -> None:
    connection = Connection(url, name="bench")
    log = Log(connection)
    streams = await asyncio.gather(*(made(log) for _ in range(count)))
    written = paths.with_suffix(".part")
    written.write_text("".join(f"/stream/{stream.claim.record.id}\n" for stream in streams))
    written.rename(paths)
    while not os.path.exists(ready):  # sseload can only signal with a file
        await asyncio.sleep(0.01)
    settle()
    began, used = time.perf_counter(), time.process_time()
    await produce(list(streams), rate, seconds)
    took, used = time.perf_counter() - began, time.process_time() - used
    await asyncio.gather(*(finish(log, stream) for stream in streams))
    await connection.close()
    events, appends = sum(stream.sent for stream in streams), sum(stream.appends for stream in streams)
    print(json.dumps({"events": events, "appends": appends, "seconds": took, "cpu_seconds": used}))


if __name__ == "__main__":
    url, count, rate, seconds, paths, ready = sys.argv[1:]
    uvloop.run(main(url, int(count), float(rate), float(seconds), Path(paths), Path(ready)))
