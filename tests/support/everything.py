"""What a Redis holds, all of it."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError


async def everything(redis: Redis) -> dict[str, list[bytes]]:
    """Each key, and all that stands in it."""
    held: Any = redis
    return {key.decode(): await _inside(held, key) for key in await held.keys("*")}


async def keys_with(redis: Redis, words: str) -> set[str]:
    """The keys whose names, or whose values, have these words."""
    told = words.encode()
    held = await everything(redis)
    return {key for key, values in held.items() if words in key or any(told in value for value in values)}


async def _inside(held: Any, key: bytes) -> list[bytes]:
    while True:
        kind = (await held.type(key)).decode()
        try:
            match kind:
                case "none":  # it has gone since it was listed
                    return []
                case "hash":
                    return [part for pair in (await held.hgetall(key)).items() for part in pair]
                case "string":
                    return [await held.get(key) or b""]
                case "stream":
                    return [
                        part for _, entry in await held.xrange(key) for pair in entry.items() for part in pair
                    ]
                case "list":
                    return list(await held.lrange(key, 0, -1))
                case "zset":
                    return list(await held.zrange(key, 0, -1))
                case "set":
                    return list(await held.smembers(key))
        except ResponseError as error:  # it was made anew, of another kind
            if "WRONGTYPE" not in str(error):
                raise
        else:
            raise AssertionError(f"{key!r} is a {kind}")
