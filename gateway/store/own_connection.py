"""Open a separate connection to the store, for code outside the event loop which serves requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.azure import credentials
from gateway.redis.cluster import Router
from gateway.redis.connect import Place
from gateway.settings import Settings
from gateway.store.log import Log


@asynccontextmanager
async def connected(settings: Settings, name: str) -> AsyncIterator[Router]:
    """Open a connection that only the running event loop may use.

    The connection is made at the first call.
    """
    tokens = credentials.redis_tokens(settings)
    redis = Router(Place(settings.redis_url, tokens), name=name)
    try:
        yield redis
    finally:
        await redis.close()
        if tokens is not None:
            await tokens.close()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Log]:
    """Open a log that only the running event loop may use. The connection is made at the first call."""
    async with connected(settings, "holdfast-lease") as redis:
        yield Log(redis)
