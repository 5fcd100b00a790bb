"""The mark of a stage that runs several times; it imports nothing, so a module of chains may import it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable


@dataclass(frozen=True, slots=True)
class Each:
    """A stage that runs once for each of `over(given)`; its result is the list of theirs.

    Each run is given what a stage is given, and its `item`. `over` must answer the same for the same.
    """

    runnable: Runnable[Any, Any] | Callable[..., Any]
    over: Callable[[Mapping[str, Any]], Sequence[Any]]
