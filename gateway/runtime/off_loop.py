"""Do long work on client data in a thread, so that the event loop is not blocked.

One thread does all such work of the process, one item after the other. Callers take turns. A caller that
sends much waits for its own items. Any other caller waits for at most one item of each other caller. Python
code releases the interpreter every 5 ms (`sys.getswitchinterval`). So the event loop waits at most that long,
even if the work takes longer. A single call of C code does not release the interpreter. No such call here
takes more than about 20 ms, for the largest body.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
SMALL_BYTES = 4096  # a body up to this size is handled in the event loop, in about 1 ms
LARGE = SMALL_BYTES + 1
Work = tuple["Future[Any]", Callable[[], Any]]


async def aside(size: int, work: Callable[[], T], owner: str = "") -> T:
    """Return the result of `work`, or raise its exception. `size` is that of its input in bytes.

    If the size is not known, it is `LARGE`. `owner`: the caller whose turn the work uses. A cancelled call
    does not wait for its work: work that has begun still runs to its end, and work that has not begun is
    dropped.
    """
    if size <= SMALL_BYTES:
        return work()
    return await asyncio.wrap_future(_line().add(owner, work))


class Line:
    """The work that waits for the thread. Owners take turns, and the items of one owner keep their order."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="holdfast-aside")
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Work]] = {}  # owner -> its work; the owner with the next turn is first

    def add(self, owner: str, work: Callable[[], T]) -> Future[T]:
        """Add work to the line. Return a future with its result."""
        told: Future[T] = Future()
        with self._lock:
            self._waiting.setdefault(owner, deque()).append((told, work))
        self._thread.submit(self._do_next)
        return told

    def _do_next(self) -> None:
        """Do the next work. This runs in the thread, once for each `add`."""
        with self._lock:
            owner = next(iter(self._waiting))
            works = self._waiting.pop(owner)
            told, work = works.popleft()
            if works:
                self._waiting[owner] = works  # after the other owners
        if not told.set_running_or_notify_cancel():
            return
        try:
            answer = work()
        except BaseException as error:
            told.set_exception(error)
        else:
            told.set_result(answer)


@cache
def _line() -> Line:
    """Return the only line of the process. It is created for the first work."""
    return Line()
