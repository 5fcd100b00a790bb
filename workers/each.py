"""Mark a stage that runs several times. This module imports nothing, so a module of chains may import it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable


@dataclass(frozen=True, slots=True)
class Each:
    """A stage that runs once for each item of `over(given)`. Its result is the list of the results.

    Each run gets the normal input of a stage, with `item` added. `over` must return the same items for the
    same input.
    """

    runnable: Runnable[Any, Any] | Callable[..., Any]
    over: Callable[[Mapping[str, Any]], Sequence[Any]]
