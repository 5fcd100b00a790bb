"""Waits for a thread's next run.

A Redis publish reports that the run has begun; the store is polled as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from gateway.formats.langgraph.threads import Thread
from gateway.protocol import sse
from gateway.relay.reader import Ending, Why
from gateway.store.threads import turns_channel

T = TypeVar("T")
LOOK_SECONDS = 5.0  # time between two polls of the store while no publish arrives


async def awaited(
    thread: Thread, look: Callable[[], Awaitable[T | None]], until: float | None, ending: Ending
) -> AsyncGenerator[T | bytes, None]:
    """Call `look` again and again, and yield its first result that is not None. Yield heartbeats before that.

    While it waits, this connection counts as one of the readers that the thread's owner may have. If the wait
    ends without a result, `ending` has the reason: the connection is too old (`until` is the time limit by
    the event loop's clock), or this process stops. Raises StoreUnavailable or TooManyReaders.
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
