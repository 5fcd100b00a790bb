"""The driver itself, shortly: every fault falls at least once, and every promise is kept."""

from __future__ import annotations

import pytest

from tests.chaos.plan import Kind
from tests.chaos.report import table
from tests.chaos.run import run

SEED = 20
SECONDS = 12.0


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_every_promise_is_kept_while_parts_are_killed_stopped_and_cut() -> None:
    outcome = await run(SEED, SECONDS)
    assert not outcome.tally.findings, "\n\n".join([*outcome.tally.findings, outcome.tails])
    seen = table(outcome.tally, outcome.mangled)
    assert outcome.tally.streams["done"] > 5, seen
    assert outcome.tally.resumes > 5, seen
    assert set(outcome.tally.faults) == set(Kind), seen
