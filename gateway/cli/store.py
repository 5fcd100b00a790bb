"""The store of a process that REDIS_URL gives none: a folder's, which the processes of this machine share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from gateway.redis.embedded import FOLDER, EmbeddedRedis
from gateway.settings import Settings


def folder_of(settings: Settings) -> Path:
    """Where the data of an embedded store is; it need not be there yet."""
    return Path(settings.store_dir or FOLDER)


@asynccontextmanager
async def stored(settings: Settings, *, alone: bool) -> AsyncIterator[tuple[Settings, str]]:
    """Settings that name a store, and a line that tells of an embedded one; empty where there is none.

    `alone`: a store that no other process can use will do. Raises SystemExit that says why there is none.
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
