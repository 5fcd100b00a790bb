"""A short run of the attackers. It checks only results that do not depend on the speed of the machine."""

from __future__ import annotations

import pytest

from tests.attackers.__main__ import MOST_GROWTH
from tests.attackers.run import run


@pytest.mark.slow
async def test_fault_57_attackers_at_the_door_fail_nobody_take_no_memory_and_cost_no_lease() -> None:
    outcome = await run(5, count=20)
    assert outcome.acts >= 20
    assert outcome.attacked.streams
    assert outcome.quiet.wrong + outcome.attacked.wrong == []
    assert outcome.taken_over == []
    for before, most in outcome.memory.values():
        assert most - before <= MOST_GROWTH
