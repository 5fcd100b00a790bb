"""Work that belongs to one event loop, asked for from whichever thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


async def within(
    loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]], patience: float
) -> T:
    """Await `work()` in this event loop, and return or raise what it does.

    LangChain, for example, calls a handler in the event loop of another thread where a tool is a plain
    function. Raises RuntimeError where the loop does not begin with the work within `patience` seconds:
    perhaps its thread waits for the caller.
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
        done.cancel()  # changes nothing where it is done
