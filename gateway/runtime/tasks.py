"""Tasks that begin at once, before the turn of the event loop in which the others have theirs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def begin(work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """A task that has come to its first wait, or to its end; before Python 3.12 an ordinary one."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, name=name, eager_start=True)
    return loop.create_task(work, name=name)
