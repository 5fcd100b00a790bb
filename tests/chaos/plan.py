"""The plan of the faults and their times. All random choices come from the seed.

Real time is not part of the seed. So two runs of a seed have the same faults, but not the same interleaving.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

CALM_SECONDS = 2.0  # no faults at the beginning, while the first streams start


class Kind(StrEnum):
    """A fault."""

    KILL_WORKER = "kill a worker"
    KILL_WEB = "kill a web"
    PAUSE_WORKER = "pause a worker past its lease"
    CUT = "cut connections to Redis"
    PUBLISHES = "drop, double and delay publishes"
    RESTART_REDIS = "kill Redis and start it again"
    STOP_REDIS = "stop Redis for some seconds"
    PROMOTE = "kill Redis and promote its replica"
    HAND_OVER = "planned failover to the replica"
    MODEL = "cut and refuse the model's answers"


class Stores(StrEnum):
    """The store of a run."""

    AOF = "aof"  # one server, which restarts with its append-only file
    REPLICATED = "replicated"  # a primary that its replica replaces
    BOTH = "both"  # a primary with a replica: the seed picks the successor


RATES_PER_MINUTE: Mapping[Kind, float] = {
    Kind.KILL_WORKER: 7.0,
    Kind.KILL_WEB: 1.5,
    Kind.PAUSE_WORKER: 3.0,
    Kind.CUT: 4.0,
    Kind.PUBLISHES: 4.0,
    Kind.RESTART_REDIS: 1.5,
    Kind.STOP_REDIS: 1.0,
    Kind.PROMOTE: 4.0,
    Kind.HAND_OVER: 1.0,
    Kind.MODEL: 4.0,
}


@dataclass(frozen=True, slots=True)
class Moment:
    """A fault, its time (in seconds from the beginning), and the seed of its own choices."""

    at: float
    kind: Kind
    seed: int

    @property
    def rng(self) -> random.Random:
        return random.Random(self.seed)


def kinds(stores: Stores, *, planned: bool) -> list[Kind]:
    """Return the faults that a store can have. `planned`: include failovers in which the old primary lives
    on."""
    never = set() if planned else {Kind.HAND_OVER}
    if stores is Stores.AOF:
        never |= {Kind.PROMOTE, Kind.HAND_OVER}
    if stores is Stores.REPLICATED:
        never.add(Kind.RESTART_REDIS)
    return [kind for kind in Kind if kind not in never]


def plan(seed: int, seconds: float, faults: Sequence[Kind]) -> list[Moment]:
    """Return the moments of these faults in a run, in order. Each fault occurs at least once."""
    rng = random.Random(seed)
    moments = []
    for kind in faults:
        for _ in range(max(1, round(RATES_PER_MINUTE[kind] * seconds / 60))):
            at = rng.uniform(min(CALM_SECONDS, seconds / 4), seconds)
            moments.append(Moment(at, kind, rng.getrandbits(32)))
    return sorted(moments, key=lambda moment: moment.at)


def shown(moments: list[Moment]) -> str:
    """Return as text how many times each fault will occur."""
    counts = Counter(moment.kind for moment in moments)
    return "\n".join(f"  {counts[kind]:4} × {kind}" for kind in Kind if counts[kind])
