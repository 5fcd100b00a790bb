"""Check once whether a server can be used. If not, say why."""

from __future__ import annotations

import asyncio

from redis import exceptions as redis_errors

from gateway.redis.connect import TIMEOUT_SECONDS, Endpoint, reason_of
from gateway.redis.refusals import word_of


async def unreachable(url: str) -> str:
    """Return the server's address and the reason, as one half of a sentence.

    Returns an empty text if the server answers.
    """
    endpoint = Endpoint(url, name="holdfast-start")
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            wire, _ = await endpoint.open()
    except (OSError, redis_errors.RedisError) as error:
        reason = reason_of(error)
        if isinstance(error, redis_errors.AuthenticationError):
            reason += ": see the user and the password in REDIS_URL"
        elif isinstance(error, redis_errors.ResponseError):
            reason = f"it answers with {word_of(error)}"
        return f"{endpoint.address}, and {reason}"
    wire.end(redis_errors.ConnectionError("it was only looked for"))
    return ""
