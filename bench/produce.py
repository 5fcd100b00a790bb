"""A producer in a process of its own: streams made and appended through `gateway.log`, as a worker's are.

`python -m bench.produce REDIS_URL STREAMS RATE SECONDS PATHS READY`: writes each stream's path to the file
PATHS, waits for the file READY, then says RATE events a second in every stream. One append is in flight for a
stream; what is due meanwhile goes with the next, as in the worker's writer. LangChain, which would be the
bound, is not here. Prints one line of JSON: events, appends, seconds, CPU seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from gateway import protocol, sse
from gateway.connection import Connection
from gateway.log import Log
from gateway.record import Claim
from gateway.settled import settle

KEEP_MS = 600_000
TICK_SECONDS = 0.001  # uvloop takes half of it for none, and would spin


@dataclass(slots=True)
class Pen:
    """One stream as its producer has it: where it ends, and what waits."""

    claim: Claim
    end: int
    sent: int = 0
    frames: list[bytes] = field(default_factory=list)
    last: str = ""
    busy: bool = False
    appends: int = 0

    def say(self) -> None:
        """One event of about 75 bytes, with the time in it."""
        self.sent += 1
        self.last = f"{self.end}-{self.claim.tag}"
        token = b'{\\"ts\\":%d,\\"seq\\":%d,\\"token\\":\\"abcdefgh\\"}' % (time.time_ns(), self.sent)
        data = b'{"deployment":"m","delta_content":"%b","stage":"chat"}' % token
        self.frames.append(b"id: %b\ndata: %b\n\n" % (self.last.encode(), data))
        self.end += len(self.frames[-1])


async def made(log: Log) -> Pen:
    """A new stream, claimed."""
    stream_id, first = protocol.new_stream_id(), protocol.start("bench", "chat", ["chat"], "")
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
    return Pen(claim, claim.log_end)


async def append(log: Log, pen: Pen, status: str = "") -> None:
    """Write until nothing waits."""
    while pen.frames:
        frames, pen.frames = b"".join(pen.frames), []
        answer = await log.append(pen.claim, pen.end - len(frames), frames, pen.last, KEEP_MS, status=status)
        assert answer.word == "ok", answer
        pen.appends += 1
    pen.busy = False


async def produce(log: Log, pens: list[Pen], rate: float, seconds: float) -> None:
    """At the rate, one stream after the other, so that their events are spread over the time between two."""
    tasks: set[asyncio.Task[None]] = set()
    every, count = 1 / (rate * len(pens)), int(rate * seconds) * len(pens)
    sent, began = 0, time.perf_counter()
    while sent < count:
        due = min(count, int((time.perf_counter() - began) / every) + 1)
        for number in range(sent, due):
            pen = pens[number % len(pens)]
            pen.say()
            if not pen.busy:
                pen.busy = True
                task = asyncio.create_task(append(log, pen))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        sent = due
        await asyncio.sleep(TICK_SECONDS)
    await asyncio.gather(*tasks)


async def finish(log: Log, pen: Pen) -> None:
    """The terminal event."""
    done = protocol.done(finish_reason="stop", usage={}, attempts=1, duration_ms=1)
    pen.last = f"{pen.end}-{pen.claim.tag}"
    pen.frames.append(sse.encode(done, pen.end, pen.claim.tag))
    pen.end += len(pen.frames[-1])
    await append(log, pen, "done")


async def main(url: str, streams: int, rate: float, seconds: float, paths: Path, ready: Path) -> None:
    connection = Connection(url, name="bench")
    log = Log(connection)
    pens = await asyncio.gather(*(made(log) for _ in range(streams)))
    written = paths.with_suffix(".part")
    written.write_text("".join(f"/stream/{pen.claim.record.id}\n" for pen in pens))
    written.rename(paths)
    while not os.path.exists(ready):  # sseload can only write a file
        await asyncio.sleep(0.01)
    settle()
    began, used = time.perf_counter(), time.process_time()
    await produce(log, list(pens), rate, seconds)
    took, used = time.perf_counter() - began, time.process_time() - used
    await asyncio.gather(*(finish(log, pen) for pen in pens))
    await connection.close()
    events, appends = sum(pen.sent for pen in pens), sum(pen.appends for pen in pens)
    print(json.dumps({"events": events, "appends": appends, "seconds": took, "cpu_seconds": used}))


if __name__ == "__main__":
    url, streams, rate, seconds, paths, ready = sys.argv[1:]
    uvloop.run(main(url, int(streams), float(rate), float(seconds), Path(paths), Path(ready)))
