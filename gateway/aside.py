"""Work on what a client has sent that may take long: it is done in a thread, and the event loop goes on.

One thread does it, for all requests of the process, one after another. Python code lets go of the interpreter
every 5 ms (`sys.getswitchinterval`), so the loop waits that long for its turn, however long the work takes. A
single call of C code does not let go: none that is made here takes more than some 20 ms for the largest body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")
SMALL_BYTES = 4096  # of a body that is worked on at once: a millisecond or so
LARGE = SMALL_BYTES + 1


async def aside(size: int, work: Callable[[], T]) -> T:
    """What `work` answers, or raises; `size` is that of its input, in bytes: `LARGE` where it is not known.

    A caller that is cancelled does not wait for its work, which goes on to its end.
    """
    if size <= SMALL_BYTES:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_thread(), work)


@cache
def _thread() -> ThreadPoolExecutor:
    """The one thread, which begins with the first work."""
    return ThreadPoolExecutor(1, thread_name_prefix="holdfast-aside")
