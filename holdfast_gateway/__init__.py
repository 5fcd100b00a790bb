"""The public names of Holdfast. Each is in an `__all__` of this package. Names in other paths may change.

`import holdfast_gateway` imports neither LangChain nor Redis nor httpx, because each name is imported at its
first use. `asgi`, `testing` and `checkpoints` are separate modules. If the packages that a name needs are not
installed, its use raises ImportError with the command that installs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from holdfast_gateway.extras import check_own, needs

if TYPE_CHECKING:
    from gateway.client import (
        Event,
        Gateway,
        GatewayError,
        Refused,
        Result,
        Stage,
        Stream,
        StreamCancelled,
        StreamFailed,
        SyncGateway,
        Unreachable,
    )
    from gateway.client.events import StreamEnded, StreamTaken
    from gateway.producer.blocking import SyncProducer
    from gateway.producer.producer import Producer
    from holdfast_gateway.streams import Streams
    from workers.chains.chat import model
    from workers.chains.registry import chain
    from workers.each import Each

__all__ = [
    "Each",
    "Event",
    "Gateway",
    "GatewayError",
    "Producer",
    "Refused",
    "Result",
    "Stage",
    "Stream",
    "StreamCancelled",
    "StreamEnded",
    "StreamFailed",
    "StreamTaken",
    "Streams",
    "SyncGateway",
    "SyncProducer",
    "Unreachable",
    "__version__",
    "chain",
    "model",
]
__version__ = "0.1.0"
_CLIENT = (
    *("Event", "Gateway", "GatewayError", "Refused", "Result", "Stage", "Stream", "StreamCancelled"),
    *("StreamFailed", "SyncGateway", "Unreachable"),
)
_HOMES = {
    **dict.fromkeys(_CLIENT, "gateway.client"),
    "Each": "workers.each",
    "Producer": "gateway.producer.producer",
    "StreamEnded": "gateway.client.events",
    "StreamTaken": "gateway.client.events",
    "Streams": "holdfast_gateway.streams",
    "SyncProducer": "gateway.producer.blocking",
    "chain": "workers.chains.registry",
    "model": "workers.chains.chat",
}
_EXTRAS = {"model": "worker"}  # extras that names need; all others need `server`

check_own()


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs(_EXTRAS.get(name, "server"), f"{__name__}.{name}"):
        value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
