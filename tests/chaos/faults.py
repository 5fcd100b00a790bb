"""The faults. Each moment's own random generator chooses the victim. A fault without a victim is not
counted."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from time import monotonic

from tests.chaos import recovery
from tests.chaos.plan import Kind, Moment
from tests.chaos.proxy import Mischief
from tests.chaos.stage import LEASE_SECONDS, Stage
from tests.chaos.store import FSYNC_SECONDS, Window, during
from tests.chaos.tally import Tally
from tests.support.processes import GatewayProcess

LOST_SECONDS = 0.9  # most a promoted replica lacks; the eve comes on top
SAME_MOMENT_SHARE = 0.6  # share of Redis falls that come with a model failure
EVE_SECONDS = 1.0  # longest wait before a fall for an answer to cut
RETRY_SECONDS = 0.3  # a stage is retried 0.25 to 0.5 s after its model failed
ANSWER_SECONDS = 10.0


class Faults:
    """Execute the plan and wait for the end of the faults that have begun."""

    def __init__(self, stage: Stage, tally: Tally) -> None:
        self._stage = stage
        self._tally = tally
        self._begun: set[asyncio.Task[None]] = set()

    async def run(self, moments: list[Moment], began: float) -> None:
        """Execute the whole plan. Each fault runs in its own task, so faults can overlap."""
        try:
            async with asyncio.TaskGroup() as faults:
                for moment in moments:
                    await asyncio.sleep(max(0.0, began + moment.at - monotonic()))
                    faults.create_task(self._do(moment), name=f"fault-{moment.kind}")
            await asyncio.gather(*self._begun)
        finally:
            for task in self._begun:
                task.cancel()

    async def _do(self, moment: Moment) -> None:
        rng = moment.rng
        match moment.kind:
            case Kind.KILL_WORKER:
                done = await self._kill_worker(rng)
            case Kind.KILL_WEB:
                done = await self._kill_web(rng)
            case Kind.PAUSE_WORKER:
                done = await self._pause(rng)
            case Kind.CUT:
                done = await self._cut(rng)
            case Kind.PUBLISHES:
                done = await self._publishes(rng)
            case Kind.RESTART_REDIS:
                done = await self._restart(rng)
            case Kind.PROMOTE:
                done = await self._promote(rng)
            case Kind.HAND_OVER:
                done = await self._hand_over()
            case Kind.MODEL:
                done = await self._stage.model.answering(ANSWER_SECONDS) and self._model(rng)
            case Kind.STOP_REDIS:
                seconds = rng.uniform(0.5, 7)
                self._stage.note(f"stop Redis for {seconds:.1f} s")
                await self._stage.store.stop(seconds)
                done = True
        if done:
            self._tally.faults[moment.kind] += 1

    async def _kill_worker(self, rng: random.Random) -> bool:
        victim = self._awake(rng)
        if victim is None:
            return False
        self._stage.paused.add(victim)  # no other fault takes this victim
        held = await recovery.held_by(self._stage, victim.pid)
        killed = monotonic()
        for stream, before in held.items():
            self._begin(stream, before, killed)
        await self._stage.replace("worker", victim)
        self._stage.paused.discard(victim)
        return True

    def _begin(self, stream: str, before: list[bytes | None], killed: float) -> None:
        work = recovery.measure(self._stage, self._tally, stream, before, killed)
        task = asyncio.create_task(work, name=f"recovery-{stream}")
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def _kill_web(self, rng: random.Random) -> bool:
        if len(self._stage.webs) < 2:
            return False
        await self._stage.replace("web", rng.choice(self._stage.webs))
        return True

    async def _pause(self, rng: random.Random) -> bool:
        victim = self._awake(rng)
        if victim is None:
            return False
        await self._stage.pause(victim, rng.uniform(LEASE_SECONDS + 0.5, LEASE_SECONDS * 4))
        return True

    async def _restart(self, rng: random.Random) -> bool:
        lose = rng.uniform(0, FSYNC_SECONDS) if rng.random() < 0.6 else 0.0
        down = rng.uniform(0, 2) if rng.random() < 0.5 else 0.0
        self._stage.note(f"kill Redis, lose its last {lose:.2f} s")
        await self._stage.store.restart(down, lose, partial(self._eve, rng))
        self._stage.note("Redis is back")
        return True

    async def _promote(self, rng: random.Random) -> bool:
        lose = rng.uniform(0, LOST_SECONDS)
        down = rng.uniform(0, 2) if rng.random() < 0.3 else 0.0
        self._stage.note(
            f"promote the replica, lose {lose:.2f} s and what comes with it, {down:.2f} s without"
        )
        await self._stage.store.promote(down, partial(asyncio.sleep, lose), partial(self._eve, rng))
        self._stage.note("the replica was promoted, and has a replica of its own")
        return True

    async def _hand_over(self) -> bool:
        self._stage.note("planned failover")
        await self._stage.store.hand_over()
        self._stage.window.cut(1.0)  # the driver's own connection uses the same name
        self._stage.note("the replica serves, the old primary follows it")
        return True

    async def _eve(self, rng: random.Random) -> None:
        """Let the model's server fail just before Redis falls, so that stages are retried during the fall."""
        if rng.random() < SAME_MOMENT_SHARE and await self._stage.model.answering(EVE_SECONDS):
            self._model(rng)
            await asyncio.sleep(rng.uniform(0, RETRY_SECONDS))

    def _model(self, rng: random.Random) -> bool:
        """Cut answers, refuse the next requests, or do both."""
        model = self._stage.model
        cut = model.cut(rng.choice((0.3, 1.0)), rng)
        refused = rng.choice((0.0, 0.5, 1.5))
        model.refuse(refused, rng)
        now = monotonic()
        self._stage.unrest.append(Window(now, now + refused))  # a retried stage continues later
        self._stage.note(f"the model cuts {cut} answers, and refuses for {refused:.1f} s")
        return cut > 0 or refused > 0

    async def _cut(self, rng: random.Random) -> bool:
        with during(self._stage.unrest):
            cut = self._stage.proxy.cut(rng.choice((0.1, 0.5, 1.0)))
            self._stage.note(f"cut {cut} connections")
            self._tally.connections_cut += cut
        return True

    async def _publishes(self, rng: random.Random) -> bool:
        share = rng.choice((0.1, 0.3, 1.0))
        parts = [rng.random() for _ in range(3)]
        drop, double, late = (share * part / sum(parts) for part in parts)
        self._stage.proxy.mischief = Mischief(drop, double, late)
        try:
            await asyncio.sleep(rng.uniform(1, 6))
        finally:
            self._stage.proxy.mischief = Mischief()
        return True

    def _awake(self, rng: random.Random) -> GatewayProcess | None:
        awake = [worker for worker in self._stage.workers if worker not in self._stage.paused]
        return rng.choice(awake) if awake else None
