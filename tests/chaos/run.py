"""One run: start all parts, cause faults for a given time, wait until all activity has ended, then check."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from time import monotonic

import httpx

from tests.chaos.crowd import Crowd
from tests.chaos.faults import Faults
from tests.chaos.judge import Judge
from tests.chaos.plan import Moment, Stores, kinds, plan
from tests.chaos.proxy import Mangled
from tests.chaos.rest import REST_SECONDS, Rest
from tests.chaos.stage import Stage, stage
from tests.chaos.tally import Tally

MOST_STORIES = 5
READ_SECONDS = 25.0  # longer than any pause or connection of a web process


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run."""

    tally: Tally
    mangled: Mangled
    tails: str  # ends of the processes' logs, if there was a finding
    story: str  # if there was a finding: the faults, and the log lines of its streams


def browser() -> httpx.AsyncClient:
    """Return the client that all readers share: it keeps no connection and waits for none."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(10.0, read=READ_SECONDS, pool=None),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        trust_env=False,
    )


async def run(seed: int, seconds: float, stores: Stores = Stores.BOTH, *, planned: bool = False) -> Outcome:
    """Run a seed. `tally.findings` is empty if every promise was kept."""
    tally, moments = Tally(), plan(seed, seconds, kinds(stores, planned=planned))
    rng = random.Random(seed + 1)
    async with stage(rng, stores) as everybody:
        async with browser() as client:
            crowd = Crowd(everybody, tally, client, rng)
            try:
                await _act(everybody, crowd, client, tally, moments, seconds)
            finally:
                await crowd.close()
        everybody.read_logs()
        tally.findings += [f"a process complains: {text}" for text in everybody.complaints]
        tails = everybody.tails() if tally.findings else ""
        story = everybody.story(sorted(tally.suspects)[:MOST_STORIES]) if tally.findings else ""
        model = everybody.model
        tally.answers_cut, tally.answers_refused = model.cuts, model.refusals
    tally.findings += everybody.exits
    return Outcome(tally, everybody.proxy.mangled, tails, story)


async def _act(
    everybody: Stage,
    crowd: Crowd,
    client: httpx.AsyncClient,
    tally: Tally,
    moments: list[Moment],
    seconds: float,
) -> None:
    rest = Rest(everybody)
    await crowd.one()
    await rest.before()
    async with asyncio.TaskGroup() as together:
        together.create_task(crowd.run(seconds))
        together.create_task(Faults(everybody, tally).run(moments, monotonic()))
    await rest.come(tally, {asked.id for asked in crowd.streams})
    late = await crowd.home(REST_SECONDS if not tally.findings else 10.0)
    tally.findings += [f"{name} did not come to an end" for name in late]
    await Judge(everybody, tally, client).all(crowd.streams, crowd.readers)
    await rest.leftovers(tally)
