"""Models that take every name in `configurable` for a field of their own: they are not handed the product's.

`init_chat_model(configurable_fields="any")` without a `config_prefix` gives all of `configurable` to the
class of the model, which sends what it does not know to the server. `holdfast_owner` would fail each call.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

from gateway.streams.params import PRODUCT

_MODULE, _CLASS, _METHOD = "langchain.chat_models.base", "_ConfigurableModel", "_model_params"


def spare_models() -> None:
    """Have such models leave the product's names alone, in whatever they are nested; once in a process.

    LangChain has no way to say so from outside, and a model may stand in a node's or a function's own code,
    so its class is changed. It is there to be changed only where a chain has imported it.
    """
    kind = getattr(sys.modules.get(_MODULE), _CLASS, None)
    taken = getattr(kind, _METHOD, None)
    if kind is not None and taken is not None and not hasattr(taken, "__wrapped__"):
        setattr(kind, _METHOD, _without_ours(taken))


def _without_ours(taken: Callable[..., Mapping[str, Any]]) -> Callable[..., dict[str, Any]]:
    @functools.wraps(taken)
    def kept(*given: Any, **named: Any) -> dict[str, Any]:
        found = taken(*given, **named)
        return {name: value for name, value in found.items() if not name.startswith(PRODUCT)}

    return kept
