"""Prevent a chain from ending its process: SystemExit and KeyboardInterrupt end only the chain's task.

asyncio passes these two exceptions from any task to the caller that runs the event loop. This ends the
process with all of its other streams. LangGraph and LangChain run nodes, tools and branches in their own
tasks, so an `except` around a chain does not catch these exceptions. A host of this product runs its loop
again after such an exception (`gateway/process.py`), which costs nothing. If the loop belongs to another
program (Azure Functions), a task factory guards the tasks that a chain creates, and only these. This costs a
chain some microseconds for each such task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any

_chain: ContextVar[str] = ContextVar("chain")
_host_survives = False  # True: the host survives these exceptions, so no task needs a guard
TaskFactory = Callable[..., Any]


class ChainExit(Exception):
    """A chain has raised SystemExit or KeyboardInterrupt in one of its tasks."""


def enter(name: str) -> None:
    """Mark this task, which runs a chain, as the chain's.

    The tasks that it creates belong to the chain too.
    """
    _chain.set(name)
    if _host_survives:
        return
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    if not isinstance(before, _Factory):
        loop.set_task_factory(_Factory(before))


def leave_to_the_host() -> None:
    """Create no guards, because the host runs its event loop again after such an exception."""
    global _host_survives
    _host_survives = True


def chain_of(task: asyncio.Task[Any] | None) -> str:
    """Return the chain that a task belongs to, or an empty string.

    Before Python 3.12 this is always empty.
    """
    shown = getattr(task, "get_context", None)
    context: Context | None = shown() if shown is not None else None
    return context.get(_chain, "") if context is not None else ""


class _Factory:
    """Creates tasks with the previous factory, and guards the tasks of chains."""

    def __init__(self, before: TaskFactory | None) -> None:
        self._before: TaskFactory | None = before

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None = None, **options: Any
    ) -> asyncio.Future[Any]:
        name = _chain.get("") if context is None else context.get(_chain, "")
        if name and asyncio.iscoroutine(coro):
            coro = _Guarded(coro)
        if context is not None:
            options["context"] = context
        if self._before is not None:
            made: asyncio.Future[Any] = self._before(loop, coro, **options)
            return made
        return asyncio.Task(coro, loop=loop, **options)


class _Guarded(Coroutine[Any, Any, Any]):
    """A coroutine that raises ChainExit instead of SystemExit and KeyboardInterrupt."""

    __slots__ = ("_coro",)

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self._coro = coro

    def send(self, value: Any) -> Any:
        """Run the next step of the coroutine."""
        try:
            return self._coro.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise ChainExit from error

    def throw(self, *given: Any) -> Any:
        """Run the next step by raising an exception in the coroutine, such as a cancellation."""
        try:
            return self._coro.throw(*given)
        except (SystemExit, KeyboardInterrupt) as error:
            raise ChainExit from error

    def close(self) -> None:
        """Close the coroutine."""
        self._coro.close()

    def __await__(self) -> Any:
        return self._coro.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coro, name)  # the coroutine's frame, for stacks and names
