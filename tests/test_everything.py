"""The search through a whole store. Other tests use it to show that nothing is left."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from tests.support.everything import keys_with

WORDS = "what wäs asked %-[a]"  # These words must be found as bytes; they are not a pattern.


async def test_words_are_found_in_a_name_and_in_a_value_of_each_kind(redis: Redis) -> None:
    held: Any = redis
    said = f"before {WORDS} behind"
    await held.set(f"name {said}", "", ex=60)
    await held.set("string", said, ex=60)
    await held.hset("field", said, "")
    await held.hset("hash", "field", said)
    await held.xadd("stream", {"other": "words", "field": said})
    await held.rpush("list", "other words", said)
    await held.zadd("zset", {"other words": 1, said: 2})
    await held.sadd("set", "other words", said)
    await held.set("other", "what was asked", ex=60)
    for key in ("field", "hash", "stream", "list", "zset", "set"):
        await held.expire(key, 60)
    kinds = {"string", "field", "hash", "stream", "list", "zset", "set"}
    assert await keys_with(redis, WORDS) == {f"name {said}", *kinds}
    assert await keys_with(redis, "nobody said this") == set()
