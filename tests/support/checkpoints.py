"""Make checkpoints for tests, read back what is stored of a thread, and check that its keys are
consistent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.base.id import uuid6
from redis.asyncio import Redis

from workers.checkpoints.names import keys_of


def place(thread: str = "one", namespace: str = "", checkpoint: str = "") -> Any:
    return {
        "configurable": {"thread_id": thread, "checkpoint_ns": namespace}
        | ({"checkpoint_id": checkpoint} if checkpoint else {})
    }


async def put(
    saver: BaseCheckpointSaver[Any],
    config: Any,
    values: Mapping[str, Any],
    new: dict[str, Any] | None = None,
    *,
    identity: str = "",
    **metadata: Any,
) -> Any:
    """Make a checkpoint with these values, {channel: (version, value)}. Only the values in `new` (by default
    all) are sent."""
    versions: Any = {channel: version for channel, (version, _) in values.items()}
    checkpoint: Any = {
        "v": 2,
        "id": identity or str(uuid6(clock_seq=-1)),
        "ts": "2026-01-01T00:00:00+00:00",
        "channel_values": {channel: value for channel, (_, value) in values.items()},
        "channel_versions": versions,
        "versions_seen": {},
        "updated_channels": None,
    }
    told: Any = {"source": "loop", "step": 1, "parents": {}, **metadata}
    return await saver.aput(config, checkpoint, told, versions if new is None else new)


async def values_of(saver: BaseCheckpointSaver[Any], config: Any) -> Any:
    found = await saver.aget_tuple(config)
    return None if found is None else found.checkpoint["channel_values"]


async def listed(saver: BaseCheckpointSaver[Any], config: Any, **options: Any) -> list[CheckpointTuple]:
    return [one async for one in saver.alist(config, **options)]


async def sound(redis: Redis, thread: str = "one", owner: str = "") -> int:
    """Check that the keys of a thread are consistent with each other; return the number of bytes that the
    thread counts."""
    saved, names, order = keys_of(owner, thread)
    raw: Any = await redis.hgetall(saved)
    fields = {name.decode(): value for name, value in raw.items()}
    named: Any = await redis.zrange(names, 0, -1)
    ordered: Any = await redis.zrange(order, 0, -1)
    members = [name.decode() for name in named]
    heads = {name[1:]: value.decode().split(" ") for name, value in fields.items() if name.startswith("h")}
    needs = [value for head in heads.values() for value in head[2:]]
    assert {name[1:] for name in members if name.startswith("c")} == heads.keys()
    assert {name for name in members if name.startswith("w")} == {
        name for name in fields if name.startswith("w")
    }
    assert {one.decode() for one in ordered} == heads.keys()
    assert {f"r/{head[1][1:]}{one}" for one, head in heads.items() if head[1] != ":"} == {
        name for name in members if name.startswith("r")
    }
    users = {name[1:]: int(value) for name, value in fields.items() if name.startswith("u")}
    assert users == {value: needs.count(value) for value in set(needs)}
    assert {name[1:] for name in fields if name.startswith("v")} <= users.keys()
    counted = sum(
        len(name) + len(value) + 128 for name, value in fields.items() if name[0] not in "#u"
    ) + sum(len(name) + 128 for name in [*members, *users])
    assert int(fields.get("#bytes", 0)) == counted
    return counted
