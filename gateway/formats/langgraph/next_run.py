"""Waits for a thread's next run: a publish says that it has begun; now and then the store is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from gateway.formats.langgraph.threads import Thread
from gateway.protocol import sse
from gateway.relay.reader import Ending, Why
from gateway.store.threads import turns_channel

T = TypeVar("T")
LOOK_SECONDS = 5.0  # between two looks, where no publish says that a run has begun


async def awaited(
    thread: Thread, look: Callable[[], Awaitable[T | None]], until: float | None, ending: Ending
) -> AsyncGenerator[T | bytes, None]:
    """What `look` finds, once it finds something; heartbeats before that.

    Who waits takes a reader's place of the thread's owner. Where nothing is found, `ending` says why: the
    connection's age (`until`, by the loop's clock), or the end of this process. Raises StoreUnavailable or
    TooManyReaders.
    """
    loop, hub = asyncio.get_running_loop(), thread.gateway.parts.hub
    heartbeat = thread.gateway.settings.heartbeat
    if (found := await look()) is not None:
        yield found
        return
    beat = loop.time()
    with hub.listen(turns_channel(thread.owner, thread.name), thread.owner) as rung:
        while not hub.is_closed:
            rung.clear()
            if (found := await look()) is not None:
                yield found
                return
            now = loop.time()
            if until is not None and now >= until:
                ending.why = Why.AGE
                return
            if now - beat >= heartbeat:
                beat = now
                yield sse.HEARTBEAT
            left = [LOOK_SECONDS, heartbeat - (now - beat), *([until - now] if until is not None else [])]
            try:
                async with asyncio.timeout(max(min(left), 0.01)):
                    await rung.wait()
            except TimeoutError:
                continue
    ending.why = Why.STOPPING
