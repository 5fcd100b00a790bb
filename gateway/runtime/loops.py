"""Run work in the event loop that it belongs to, from any thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


async def within(
    loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]], patience: float
) -> T:
    """Await `work()` in this event loop. Return its result, or raise its exception.

    This is needed because, for example, LangChain calls a handler in the event loop of another thread if a
    tool is a plain function. Raises RuntimeError if the loop does not begin the work within `patience`
    seconds: perhaps the loop's thread is waiting for the caller.
    """
    if asyncio.get_running_loop() is loop:
        return await work()
    begun: Future[None] = Future()

    async def begin() -> T:
        begun.set_result(None)
        return await work()

    done = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(begin(), loop))
    either: set[asyncio.Future[Any]] = {asyncio.wrap_future(begun), done}
    try:
        await asyncio.wait(either, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not begun.done():
            raise RuntimeError("the event loop of the stream is blocked; is a chain's `invoke` called in it?")
        return await done
    finally:
        done.cancel()  # has no effect if it is already done
