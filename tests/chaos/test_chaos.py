"""A short run of the driver: every fault happens at least once, and every promise is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.chaos.plan import Kind, Stores, kinds
from tests.chaos.report import table
from tests.chaos.run import Outcome, run

SEED = 208  # here streams run and the model fails at the promotion
SECONDS = 12.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outcome() -> AsyncIterator[Outcome]:
    """Do one short run. Each test checks one aspect of it."""
    yield await run(SEED, SECONDS, Stores.BOTH)


async def test_every_fault_falls_and_streams_go_on(outcome: Outcome) -> None:
    seen = table(outcome.tally, outcome.mangled)
    assert outcome.tally.streams["done"] > 5, seen
    assert outcome.tally.resumes > 5, seen
    assert set(outcome.tally.faults) == set(kinds(Stores.BOTH, planned=False)), seen


async def test_fault_90_a_replica_is_promoted_and_nothing_is_lost_untold(outcome: Outcome) -> None:
    assert outcome.tally.faults[Kind.PROMOTE] >= 1
    assert not outcome.tally.findings, "\n\n".join([*outcome.tally.findings, outcome.story, outcome.tails])


async def test_fault_91_a_model_that_fails_in_the_same_moment_doubles_no_text(outcome: Outcome) -> None:
    assert outcome.tally.answers_cut + outcome.tally.answers_refused >= 1
    assert not [finding for finding in outcome.tally.findings if " text" in finding]
