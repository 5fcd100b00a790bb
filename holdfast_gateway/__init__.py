"""The public names of Holdfast, each in an `__all__` of this package; every other path may change.

`import holdfast_gateway` imports neither LangChain nor Redis: a name is imported when it is first asked for.
The tests of a chain have a module of their own, `holdfast_gateway.testing`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.client.events import StreamEnded, StreamTaken
    from gateway.producer.blocking import SyncProducer
    from gateway.producer.producer import Producer
    from workers.chains.chat import model
    from workers.chains.registry import chain
    from workers.each import Each

__all__ = [
    "Each",
    "Producer",
    "StreamEnded",
    "StreamTaken",
    "SyncProducer",
    "__version__",
    "chain",
    "model",
]
__version__ = "0"
_HOMES = {
    "Each": "workers.each",
    "Producer": "gateway.producer.producer",
    "StreamEnded": "gateway.client.events",
    "StreamTaken": "gateway.client.events",
    "SyncProducer": "gateway.producer.blocking",
    "chain": "workers.chains.registry",
    "model": "workers.chains.chat",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
