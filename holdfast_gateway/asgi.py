"""The gateway as an ASGI application, alone or mounted in a Starlette or FastAPI application.

    holdfast = create_app(owner=who)             # who(request): the caller's name, or None
    app = FastAPI(lifespan=holdfast.lifespan)
    app.mount("/ai", holdfast)

`uvicorn holdfast_gateway.asgi:app` serves `create_app()`.
"""

from __future__ import annotations

from typing import Any

from holdfast_gateway.extras import needs

with needs("server", __name__):
    from holdfast_gateway.mounted import Holdfast, create_app

__all__ = ["Holdfast", "create_app"]


def __getattr__(name: str) -> Any:
    """Create `app` when a server asks for it (PEP 562)."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = create_app()
    return made
