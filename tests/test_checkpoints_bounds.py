"""The size limit of a thread, what it deletes, the cost of a long thread, and a store that has lost data."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from holdfast_gateway.checkpoints import CheckpointGone, CheckpointTooLarge, Saver, ThreadFull
from tests.support.checkpoints import listed, place, put, sound, values_of
from workers.checkpoints.names import keys_of


async def test_a_run_whose_checkpoint_is_gone_stores_nothing(redis_url: str, redis: Redis) -> None:
    async with Saver.from_url(redis_url) as saver:
        first = await put(saver, place(), {"a": (1, "x"), "b": (1, "y")})
        await saver.adelete_thread("one")
        with pytest.raises(CheckpointGone):
            await put(saver, first, {"a": (2, "z"), "b": (1, "y")}, {"a": 2})
        assert CheckpointGone.is_retryable
        assert [key async for key in redis.scan_iter("*:saved")] == []
        await put(saver, first, {"a": (2, "z"), "b": (1, "y")})  # This call brings all values that it needs.
        assert await values_of(saver, place()) == {"a": "z", "b": "y"}


async def test_what_is_too_large_is_refused_whole(redis_url: str, redis: Redis) -> None:
    async with Saver.from_url(redis_url, checkpoint_bytes=5000, thread_bytes=20_000) as saver:
        with pytest.raises(CheckpointTooLarge, match="5000"):
            await put(saver, place(), {"a": (1, "x" * 5000)})
        assert await redis.dbsize() == 0
        config = await put(saver, place(), {"a": (1, "x")})
        with pytest.raises(CheckpointTooLarge):
            await saver.aput_writes(config, [("a", "x" * 5000)], "task")

        async def fill() -> None:
            for number in range(10):
                await saver.aput_writes(config, [("a", "x" * 4000)], f"task {number}")

        with pytest.raises(ThreadFull, match="20000"):
            await fill()
        assert await sound(redis) <= 20_000
        # This write is already stored, so it needs no room.
        await saver.aput_writes(config, [("a", "x" * 4000)], "task 0")
        assert await values_of(saver, place()) == {"a": "x"}
    with pytest.raises(ValueError, match="more than 0"):
        async with Saver.from_url(redis_url, seconds=0):
            pass


async def test_a_full_thread_drops_its_oldest_checkpoints_and_what_is_listed_is_whole(
    redis_url: str, redis: Redis
) -> None:
    most = 60_000
    async with Saver.from_url(redis_url, thread_bytes=most) as saver:
        lasting = await put(saver, place("one", "tool"), {"a": (1, "lasting")})
        early = await put(saver, place("one", "node:1"), {"a": (1, "early")})
        config, made = place(), []
        for number in range(150):
            values = {"a": (number, f"{number} {'x' * 300}"), "b": (1, "same")}
            config = await put(saver, config, values, {"a": number} | ({"b": 1} if not number else {}))
            await saver.aput_writes(config, [("a", number)], "task")
            made.append(config)
            assert await sound(redis) <= most
        waiting = await put(saver, place("one", "node:2"), {"a": (1, "waiting")})
        child = place("one", "node:3")
        for number in range(150):  # A long subgraph runs within one step of the root.
            child = await put(saver, child, {"a": (number, f"{number} {'x' * 300}")})
        found = await listed(saver, place())
        assert [one.config for one in found] == made[: -len(found) - 1 : -1]  # The newest ones are left.
        assert 1 <= len(found) < 30
        for one in found:
            number = made.index(one.config)
            assert one.checkpoint["channel_values"] == {"a": f"{number} {'x' * 300}", "b": "same"}
            assert one.pending_writes == [("task", "a", number)]
        assert await values_of(saver, lasting) == {"a": "lasting"}
        assert await values_of(saver, waiting) == {"a": "waiting"}
        assert await values_of(saver, early) is None
        assert await sound(redis) <= most


# The script adds copies of the newest checkpoint as older checkpoints.
GROWN = """
local saved, names, order, id, many = KEYS[1], KEYS[2], KEYS[3], ARGV[1], tonumber(ARGV[2])
local head = redis.call('HGET', saved, 'h' .. id)
local body, told = redis.call('HGET', saved, 'c' .. id), redis.call('HGET', saved, 'm' .. id)
for number = 1, many do
  local older = string.format('//%08d', number)
  local value = string.format('/%s/a/str.%08d', '', number)
  local own = string.gsub(head, ' .*$', '') .. ' : ' .. value
  redis.call('HSET', saved, 'h' .. older, own, 'c' .. older, body, 'm' .. older, told, 'v' .. value, 'null:')
  redis.call('HSET', saved, 'u' .. value, 1)
  redis.call('ZADD', names, 0, 'c' .. older)
  redis.call('ZADD', order, number - many, older)
end
return many
"""


async def test_a_turn_in_a_thread_of_10_000_checkpoints_costs_what_it_costs_in_a_fresh_one(
    redis_url: str, redis: Redis
) -> None:
    """The cost is counted in commands and bytes, so no clock is needed."""
    async with Saver.from_url(redis_url) as saver:

        async def turn(config: Any) -> None:
            found = await saver.aget_tuple(config)
            assert found is not None
            config = found.config
            for number in ("1", "2", "3"):
                await saver.aput_writes(config, [("a", "x")], "task")
                config = await put(saver, config, {"a": (number, "x"), "b": ("1", "y")}, {"a": number})

        async def cost(thread: str) -> tuple[int, int]:
            await redis.config_resetstat()
            await turn(place(thread))
            stats: Any = await redis.info("all")
            calls = sum(one["calls"] for name, one in stats.items() if name.startswith("cmdstat_"))
            return calls, stats["total_net_output_bytes"]

        for thread in ("first", "fresh", "long"):
            last = await put(saver, place(thread), {"a": ("0", "x"), "b": ("1", "y")})
        newest = f"//{last['configurable']['checkpoint_id']}"
        assert await redis.eval(GROWN, 3, *keys_of("", "long"), newest, 10_000) == 10_000
        await cost("first")  # The server loads the scripts here.
        (fresh_calls, fresh_bytes), (calls, size) = await cost("fresh"), await cost("long")
        assert len(await listed(saver, place("long"), limit=5)) == 5
        assert await redis.zcard(keys_of("", "long")[2]) > 10_000
    assert calls <= fresh_calls + 5  # The connection sometimes asks for the server's role.
    assert size <= 2 * fresh_bytes
