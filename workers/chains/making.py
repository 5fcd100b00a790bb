"""Create a chain by calling its factory, in each form that a factory may have, and check the result.

A factory is a function with the settings as its argument. It may be plain or async, or it may yield its chain
(a context manager, async or not). The resources that it opens stay open until the process ends, and are
closed then.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.protocol.errors import WrongChain, stack_of
from gateway.settings import Settings
from workers.each import Each

_log = logging.getLogger("holdfast.registry")
CLOSE_SECONDS = 5.0  # for all resources that factories have opened
_NO_LOOP = "no running event loop"


class Maker:
    """Calls factories, and keeps their resources open."""

    def __init__(self) -> None:
        self._open: list[asyncio.Task[None]] = []
        self._closing = asyncio.Event()

    async def make(self, name: str, factory: Callable[[Settings], Any], settings: Settings) -> Any:
        """Return what the factory makes.

        A factory that is not async is called in a thread, because importing LangChain takes more than a
        second. If the factory asks for the running event loop there, it is called a second time, in the event
        loop.

        Raises the exceptions of the factory. Raises WrongChain when the factory returns nothing.
        """
        _check_takes_settings(name, factory, settings)
        if inspect.iscoroutinefunction(factory) or inspect.isasyncgenfunction(factory):
            made = factory(settings)
        else:
            try:
                made = await asyncio.to_thread(factory, settings)
            except RuntimeError as error:
                if _NO_LOOP not in str(error):
                    raise
                made = factory(settings)
        if inspect.isawaitable(made):
            made = await made
        if inspect.isasyncgen(made) or inspect.isgenerator(made):
            made = _managed(made)
        if _is_manager(made):
            made = await self._enter(name, made)
        if made is None:
            raise WrongChain(
                f"the factory of the chain {name} ({place_of(factory)}) gives None: return the chain"
            )
        return made

    async def close(self, seconds: float | None = None) -> None:
        """Leave every context manager, each in the task that entered it.

        If one is still open after `seconds` (None: CLOSE_SECONDS), it is named in the log and cancelled.
        """
        limit = CLOSE_SECONDS if seconds is None else seconds
        self._closing.set()
        if self._open:
            _, left = await asyncio.wait(self._open, timeout=limit)
            for task in left:
                _log.error("%s does not close in %.0f s", task.get_name(), limit)
                task.cancel()

    async def _enter(self, name: str, manager: Any) -> Any:
        """Enter a context manager in its own task.

        Some context managers (anyio's) must be left by the task that entered them.
        """
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._keep(name, manager, ready), name=f"what the chain {name} has opened")
        self._open.append(task)
        return await ready

    async def _keep(self, name: str, manager: Any, ready: asyncio.Future[Any]) -> None:
        entered = manager if hasattr(manager, "__aenter__") else _InThread(manager)
        try:
            async with entered as made:
                if not ready.cancelled():
                    ready.set_result(made)
                    await self._closing.wait()
        except asyncio.CancelledError:
            ready.cancel()
            raise
        except BaseException as error:  # raised by the factory, before or after its `yield`
            if ready.done():
                _log.error("the chain %s did not close what it had opened\n%s", name, stack_of(error))
            else:
                ready.set_exception(error)


class _InThread:
    """A context manager that is not async. It is entered and left in threads."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        return await asyncio.to_thread(self._manager.__enter__)

    async def __aexit__(self, *error: Any) -> Any:
        return await asyncio.to_thread(self._manager.__exit__, *error)


def _managed(generator: Any) -> Any:
    """Return a generator of one value as a context manager, as contextlib's decorator does."""
    if inspect.isasyncgen(generator):
        return contextlib.asynccontextmanager(lambda: generator)()
    return contextlib.contextmanager(lambda: generator)()


def _is_manager(made: Any) -> bool:
    return (hasattr(made, "__aenter__") or hasattr(made, "__enter__")) and not hasattr(made, "ainvoke")


def checked(name: str, stages: Sequence[str], made: Any, factory: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the parts of a chain by stage, in order. Each part is a Runnable or an Each.

    A function is converted to a Runnable, as LangChain's `|` does it. Raises WrongChain with one sentence
    that says what to do.
    """
    where = f"the factory of the chain {name} ({place_of(factory)})"
    if len(stages) == 1 and not isinstance(made, Mapping):
        made = {stages[0]: made}
    if not isinstance(made, Mapping):
        raise WrongChain(
            f"{where} gives {_kind(made)}: return a mapping from its stages, {', '.join(stages)}"
        )
    if set(made) != set(stages):
        lacks = [stage for stage in stages if stage not in made]
        more = [str(given) for given in made if given not in stages]
        said = [f"lacks {', '.join(lacks)}"] if lacks else []
        said += [f"has {', '.join(more)}, which the mark's `stages` do not name"] if more else []
        raise WrongChain(f"the mapping that {where} gives {' and '.join(said)}")
    return {stage: _part(where, stage, made[stage]) for stage in stages}


def _part(where: str, stage: str, part: Any) -> Any:
    runnable = part.runnable if isinstance(part, Each) else part
    is_class = isinstance(runnable, type)
    if hasattr(runnable, "astream") and not is_class:
        return part
    if callable(runnable) and not is_class:
        from langchain_core.runnables.base import coerce_to_runnable

        made = coerce_to_runnable(runnable)
        return Each(made, part.over) if isinstance(part, Each) else made
    raise WrongChain(f"{where} gives {_kind(runnable)} for {stage}: a Runnable of LangChain's is needed")


def _kind(made: Any) -> str:
    if isinstance(made, type):
        return f"the class {made.__name__}"
    return "None" if made is None else f"an object of the type {type(made).__name__}"


def place_of(factory: Callable[..., Any]) -> str:
    """Return the file and line of a factory."""
    code = getattr(inspect.unwrap(factory), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(factory)


def _check_takes_settings(name: str, factory: Callable[..., Any], settings: Settings) -> None:
    """Raises WrongChain, which names the factory's place, if the factory does not take the settings alone."""
    try:
        taken = inspect.signature(factory)
    except ValueError:  # a callable without a signature, as some of C are
        return
    try:
        taken.bind(settings)
    except TypeError:
        raise WrongChain(
            f"the factory of the chain {name} ({place_of(factory)}) must take one argument, the settings"
        ) from None
