"""Random operations on a thread.

The listed checkpoints are those that were stored, and the keys are consistent.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.asyncio import Redis

from holdfast_gateway.checkpoints import Saver
from tests.support.checkpoints import listed, place, put, sound

NAMESPACES = ("", "tool", "node:1", "node:2")
CHANNELS = "abcd"
Values = dict[str, tuple[str, str]]  # Version and value of each channel.


@dataclass
class One:
    """The data that must be read back for one checkpoint."""

    config: Any
    namespace: str
    parent: str
    run: str
    values: Values
    writes: dict[tuple[str, int], str] = field(default_factory=dict)


@dataclass
class Life:
    """A thread with random operations.

    `made` has the checkpoints that must exist, by id, in the order of the puts.
    """

    saver: Saver
    chance: random.Random
    made: dict[str, One] = field(default_factory=dict)

    async def put(self) -> None:
        """Store a checkpoint after any existing one, or the first one of its namespace.

        Sometimes send it twice.
        """
        namespace = self.chance.choice(NAMESPACES)
        known = [one for one in self.made.values() if one.namespace == namespace]
        before = self.chance.choice([*known, *known[-1:] * 5]) if known else None
        values: Values = dict(before.values) if before else {}
        new: dict[str, Any] = {}
        for channel in self.chance.sample(CHANNELS, self.chance.randint(0, 3)):
            version = self.saver.get_next_version(values[channel][0] if channel in values else None, None)
            values[channel] = version, f"{channel} {self.chance.random()} {'x' * self.chance.randint(0, 400)}"
            new[channel] = version
        run = self.chance.choice(["", "r1", "r2"])
        told = {"run_id": run} if run else {}
        config = before.config if before else place("one", namespace)
        stored = await put(self.saver, config, values, new, **told)
        parent = before.config["configurable"]["checkpoint_id"] if before else ""
        identity = stored["configurable"]["checkpoint_id"]
        self.made[identity] = One(stored, namespace, parent, run, values)
        if self.chance.random() < 0.2:
            again: Any = {"run_id": run} if run else {}
            await put(self.saver, config, values, new, identity=identity, **again)

    async def write(self) -> None:
        """Store writes of a task. Writes that already exist keep their values."""
        if not self.made:
            return
        one = self.chance.choice(list(self.made.values()))
        task, many = self.chance.choice("st"), self.chance.randint(1, 3)
        given = [("a", str(self.chance.random())) for _ in range(many)]
        await self.saver.aput_writes(one.config, given, task)
        for number, (_, value) in enumerate(given):
            one.writes.setdefault((task, number), value)

    async def end_a_run(self) -> None:
        """Delete all checkpoints of a run."""
        run = self.chance.choice(["r1", "r2"])
        await self.saver.adelete_for_runs([run])
        self.made = {name: one for name, one in self.made.items() if one.run != run}

    async def prune(self) -> None:
        """Delete all checkpoints except the newest of each namespace."""
        await self.saver.aprune(["one"])
        newest = {one.namespace: name for name, one in self.made.items()}
        self.made = {name: one for name, one in self.made.items() if name in newest.values()}

    async def look(self, *, dropping: bool) -> None:
        """Check that the listed checkpoints are those that were made.

        If the thread may drop some, the list is a part of them.
        """
        everything: Any = {"configurable": {"thread_id": "one"}}
        found = {one.checkpoint["id"]: one for one in await listed(self.saver, everything)}
        if dropping:
            needed = {one.namespace: name for name, one in self.made.items() if ":" not in one.namespace}
            assert set(needed.values()) <= found.keys() <= self.made.keys()
            self.made = {name: one for name, one in self.made.items() if name in found}
        assert found.keys() == self.made.keys()
        for name, tuple_ in found.items():
            one = self.made[name]
            values = {channel: value for channel, (_, value) in one.values.items()}
            assert tuple_.checkpoint["channel_values"] == values
            assert tuple_.config == one.config
            parent = tuple_.parent_config["configurable"]["checkpoint_id"] if tuple_.parent_config else ""
            assert parent == one.parent
            assert tuple_.pending_writes == [
                (task, "a", value) for (task, _), value in sorted(one.writes.items())
            ]


@pytest.mark.parametrize("most", [10_000_000, 60_000])
@pytest.mark.parametrize("seed", range(3))
async def test_a_life_of_a_thread(redis_url: str, redis: Redis, seed: int, most: int) -> None:
    chance = random.Random(seed)
    async with Saver.from_url(redis_url, thread_bytes=most) as saver:
        life = Life(saver, chance)
        acts = [life.put] * 12 + [life.write] * 6 + [life.end_a_run, life.prune][: 2 if most > 60_000 else 0]
        for number in range(100):
            await chance.choice(acts)()
            assert await sound(redis) <= most
            if most == 60_000 or not number % 5:
                await life.look(dropping=most == 60_000)
        assert len(life.made) > 1
        await saver.acopy_thread("one", "two")
        originals = await listed(saver, {"configurable": {"thread_id": "one"}})
        copies = await listed(saver, {"configurable": {"thread_id": "two"}})
        assert [(one.checkpoint, one.metadata, one.pending_writes) for one in copies] == [
            (one.checkpoint, one.metadata, one.pending_writes) for one in originals
        ]
        await sound(redis, "two")
        await saver.aprune(["one", "two"], strategy="delete")
        assert await redis.dbsize() == 0
