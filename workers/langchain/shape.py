"""Convert the parts of a chain that LangChain cannot stream to a form that it can stream.

A graph within a sequence is called by `ainvoke`. Its chunks would be updates, and the next step would use
them as the state. A function that is a plain generator runs in a thread, piece by piece. The chain that its
author has made is not changed.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

_STATES = "holdfast_gives_states"
_OVER = object()


def is_graph(runnable: Any) -> bool:
    """Return whether this is a compiled graph."""
    pregel = sys.modules.get("langgraph.pregel")
    return pregel is not None and isinstance(runnable, pregel.Pregel)


def gives_states(runnable: Any) -> bool:
    """Return whether this replaces a graph, whose values are states and not text."""
    return bool(getattr(getattr(runnable, "afunc", None), _STATES, False))


def streamable(runnable: Any) -> Any:
    """Return the chain in a form that can be streamed. If nothing must change, return the same object."""
    from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnableParallel, RunnableSequence
    from langchain_core.runnables.base import RunnableBindingBase
    from langchain_core.runnables.passthrough import RunnableAssign

    if is_graph(runnable):
        return _asked_whole(runnable)
    if isinstance(runnable, RunnableLambda):
        return _in_a_thread(runnable)
    if isinstance(runnable, RunnableSequence):
        return _with(runnable, first=runnable.first, middle=runnable.middle, last=runnable.last)
    if isinstance(runnable, RunnableBindingBase):
        return _with(runnable, bound=runnable.bound)
    if isinstance(runnable, RunnableParallel):
        return _with(runnable, steps__=runnable.steps__)
    if isinstance(runnable, RunnableAssign):
        return _with(runnable, mapper=runnable.mapper)
    if isinstance(runnable, RunnableBranch):
        return _with(runnable, branches=runnable.branches, default=runnable.default)
    return runnable


def _with(runnable: Any, **parts: Any) -> Any:
    made = {name: _part(part) for name, part in parts.items()}
    changed = {name: part for name, part in made.items() if part is not parts[name]}
    return runnable.model_copy(update=changed) if changed else runnable


def _part(part: Any) -> Any:
    """Convert a part of a chain: a Runnable, or a list, tuple or mapping of Runnables."""
    if isinstance(part, dict):
        made: Any = {name: _part(one) for name, one in part.items()}
        return part if all(made[name] is part[name] for name in part) else made
    if isinstance(part, list | tuple):
        made = type(part)(_part(one) for one in part)
        return part if all(a is b for a, b in zip(made, part, strict=True)) else made
    return streamable(part)


def _asked_whole(graph: Any) -> Any:
    from langchain_core.runnables import RunnableConfig, RunnableLambda

    def invoke(given: Any, config: RunnableConfig, **options: Any) -> Any:
        return graph.invoke(given, config, **options)

    async def ainvoke(given: Any, config: RunnableConfig, **options: Any) -> Any:
        return await graph.ainvoke(given, config, **options)

    setattr(ainvoke, _STATES, True)
    return RunnableLambda(invoke, afunc=ainvoke, name=graph.get_name())


def _in_a_thread(runnable: Any) -> Any:
    """Give a generator function an async form. A function that already has one is returned unchanged."""
    from langchain_core.runnables import RunnableConfig, RunnableLambda
    from langchain_core.runnables.utils import accepts_config

    func = getattr(runnable, "func", None)
    if func is None or hasattr(runnable, "afunc") or not inspect.isgeneratorfunction(func):
        return runnable
    takes_config = accepts_config(func)

    async def pieces(given: Any, config: RunnableConfig, **options: Any) -> AsyncIterator[Any]:
        made = func(given, **(options | ({"config": config} if takes_config else {})))
        try:
            while (piece := await asyncio.to_thread(next, made, _OVER)) is not _OVER:
                yield piece
        finally:
            await asyncio.to_thread(made.close)

    afunc: Callable[..., Any] = pieces
    return RunnableLambda(func, afunc=afunc, name=runnable.name)
