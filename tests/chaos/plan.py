"""What will be done to the parts, and when: everything random comes from the seed.

Real time is not part of the seed, so two runs of a seed meet the same faults, not the same interleaving.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

CALM_SECONDS = 2.0  # at the beginning: the first streams are on their way


class Kind(StrEnum):
    """A fault."""

    KILL_WORKER = "kill a worker"
    KILL_WEB = "kill a web"
    PAUSE_WORKER = "pause a worker past its lease"
    CUT = "cut connections to Redis"
    PUBLISHES = "drop, double and delay publishes"
    RESTART_REDIS = "kill Redis and start it again"
    STOP_REDIS = "stop Redis for some seconds"


RATES_PER_MINUTE: Mapping[Kind, float] = {
    Kind.KILL_WORKER: 7.0,
    Kind.KILL_WEB: 1.5,
    Kind.PAUSE_WORKER: 3.0,
    Kind.CUT: 4.0,
    Kind.PUBLISHES: 4.0,
    Kind.RESTART_REDIS: 1.5,
    Kind.STOP_REDIS: 1.0,
}


@dataclass(frozen=True, slots=True)
class Moment:
    """A fault, when it comes (seconds from the beginning), and what its own choices are drawn from."""

    at: float
    kind: Kind
    seed: int

    @property
    def rng(self) -> random.Random:
        return random.Random(self.seed)


def plan(seed: int, seconds: float) -> list[Moment]:
    """The faults of a run, in order; each kind comes at least once."""
    rng = random.Random(seed)
    moments = []
    for kind, rate in RATES_PER_MINUTE.items():
        for _ in range(max(1, round(rate * seconds / 60))):
            at = rng.uniform(min(CALM_SECONDS, seconds / 4), seconds)
            moments.append(Moment(at, kind, rng.getrandbits(32)))
    return sorted(moments, key=lambda moment: moment.at)


def shown(moments: list[Moment]) -> str:
    """How often each fault will come."""
    counts = Counter(moment.kind for moment in moments)
    return "\n".join(f"  {counts[kind]:4} × {kind}" for kind in Kind)
