"""Keep the product's names out of models that use every name in `configurable` as a field of the model.

`init_chat_model(configurable_fields="any")` without a `config_prefix` passes all of `configurable` to the
class of the model. The model sends unknown names to its server. So `holdfast_owner` would make each call
fail.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

from gateway.streams.params import PRODUCT

_MODULE, _CLASS, _METHOD = "langchain.chat_models.base", "_ConfigurableModel", "_model_params"


def spare_models() -> None:
    """Make such models ignore the product's names, wherever they are nested. This is done once in a process.

    LangChain has no option for this. A model may be in the code of a node or a function. So its class is
    changed here. The class exists only if a chain has imported its module.
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
