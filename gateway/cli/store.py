"""Start a store when REDIS_URL is not set. It is in a folder that this machine's processes share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from gateway.redis.embedded import FOLDER, EmbeddedRedis
from gateway.settings import Settings


def folder_of(settings: Settings) -> Path:
    """Return the folder with the data of an embedded store. The folder may not exist yet."""
    return Path(settings.store_dir or FOLDER)


@asynccontextmanager
async def stored(settings: Settings, *, alone: bool) -> AsyncIterator[tuple[Settings, str]]:
    """Yield settings that name a store, and a line about the embedded store. Empty line: there is none.

    `alone`: the store need not be usable by other processes. Raises SystemExit, which says why there is no
    store.
    """
    if settings.redis_url:
        yield settings, ""
        return
    redis = EmbeddedRedis(folder_of(settings), shared=not alone)
    try:
        await redis.start()
    except (RuntimeError, OSError) as error:
        raise SystemExit(f"there is no store, and REDIS_URL names none: {error}") from None
    try:
        yield replace(settings, redis_url=redis.url), redis.notice
    finally:
        await redis.stop()
