"""A chain cannot end its process: SystemExit and KeyboardInterrupt end the chain's task as an ordinary error.

asyncio lets these two exceptions of any task through to whoever runs the event loop, and so to the end of the
process with every other stream in it. LangGraph and LangChain run nodes, tools and branches in tasks of their
own, so no `except` around a chain sees them. A host of ours goes on with its loop then
(`gateway/process.py`), which costs nothing. Where the loop is another's (Azure Functions) a task factory
guards the tasks that a chain makes, and no others; that costs a chain some microseconds for each such task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any

_chain: ContextVar[str] = ContextVar("chain")
_host_survives = False  # these exceptions, so no task needs to be guarded
TaskFactory = Callable[..., Any]


class ChainExit(Exception):
    """A chain has raised SystemExit or KeyboardInterrupt in a task of its own."""


def enter(name: str) -> None:
    """From here on this task, in which a chain runs, and the tasks that it makes are the chain's."""
    _chain.set(name)
    if _host_survives:
        return
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    if not isinstance(before, _Factory):
        loop.set_task_factory(_Factory(before))


def leave_to_the_host() -> None:
    """The host goes on with its event loop after such an exception, so no task needs a guard."""
    global _host_survives
    _host_survives = True


def chain_of(task: asyncio.Task[Any] | None) -> str:
    """The chain that a task belongs to; empty for none. Before Python 3.12 a task does not show it."""
    shown = getattr(task, "get_context", None)
    context: Context | None = shown() if shown is not None else None
    return context.get(_chain, "") if context is not None else ""


class _Factory:
    """Makes tasks as the factory before it, and guards those of chains."""

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
    """A coroutine whose SystemExit and KeyboardInterrupt are a ChainExit."""

    __slots__ = ("_coro",)

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self._coro = coro

    def send(self, value: Any) -> Any:
        """The next step."""
        try:
            return self._coro.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise ChainExit from error

    def throw(self, *given: Any) -> Any:
        """The next step, by an exception: a cancellation."""
        try:
            return self._coro.throw(*given)
        except (SystemExit, KeyboardInterrupt) as error:
            raise ChainExit from error

    def close(self) -> None:
        """Let go of it."""
        self._coro.close()

    def __await__(self) -> Any:
        return self._coro.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coro, name)  # its frame, for stacks and names
