"""Work on what a client has sent that may take long: it is done in a thread, and the event loop goes on.

One thread does it, for all requests of the process, one work after another. Callers take turns: whoever sends
much waits behind his own works, and anybody else waits for one work of each other caller at most. Python code
lets go of the interpreter every 5 ms (`sys.getswitchinterval`), so the loop waits that long for its turn,
however long the work takes. A single call of C code does not let go: none that is made here takes more than
some 20 ms for the largest body.
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
SMALL_BYTES = 4096  # of a body that is worked on at once: a millisecond or so
LARGE = SMALL_BYTES + 1
Work = tuple["Future[Any]", Callable[[], Any]]


async def aside(size: int, work: Callable[[], T], owner: str = "") -> T:
    """What `work` answers, or raises; `size` is that of its input, in bytes: `LARGE` where it is not known.

    `owner`: the caller whose turn it takes. A caller that is cancelled does not wait for its work: what has
    begun goes on to its end, and what has not is left out.
    """
    if size <= SMALL_BYTES:
        return work()
    return await asyncio.wrap_future(_line().add(owner, work))


class Line:
    """Works that wait for the thread: in turns by owner, and each owner's in their order."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="holdfast-aside")
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Work]] = {}  # by owner; the owner whose turn is next stands first

    def add(self, owner: str, work: Callable[[], T]) -> Future[T]:
        """One more."""
        told: Future[T] = Future()
        with self._lock:
            self._waiting.setdefault(owner, deque()).append((told, work))
        self._thread.submit(self._do_next)
        return told

    def _do_next(self) -> None:
        """In the thread: once for each work that was added."""
        with self._lock:
            owner = next(iter(self._waiting))
            works = self._waiting.pop(owner)
            told, work = works.popleft()
            if works:
                self._waiting[owner] = works  # behind the others
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
    """The one line, which begins with the first work."""
    return Line()
