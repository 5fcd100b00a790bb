"""Start tasks at once, not only in the next turn of the event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def begin(work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Return a task that has already run to its first wait or to its end.

    Before Python 3.12 it is an ordinary task, which starts later.
    """
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, name=name, eager_start=True)
    return loop.create_task(work, name=name)
