"""The real log is compared with a simple model of it, in random lives of a stream (see `tests/model`).

The long run: `pytest -p tests.model.profiles --hypothesis-profile=long tests/test_log_model.py -s`.
"""

from __future__ import annotations

from collections import Counter
from time import monotonic

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.model.attempt import RESET, SEAMLESS
from tests.model.machine import LogMachine
from tests.model.profiles import chosen
from tests.model.retries import AGAIN, HANDED_OVER, MATCHED, REWRITTEN, RetryMachine

GIVEN_UP = ("given up: wait_limit", "given up: time_limit")
MET = ("told log_lost", "found by sweep or ask", "found in the end", *GIVEN_UP, SEAMLESS, RESET)


RETRIES_MET = ("told log_lost", "found in the end", AGAIN, MATCHED, HANDED_OVER, REWRITTEN)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fault_8_the_log_is_its_model_whatever_befalls_it(redis_url: str) -> None:
    LogMachine.url, LogMachine.steps = redis_url, 0
    LogMachine.seen.clear()
    began = monotonic()
    run_state_machine_as_test(LogMachine, settings=chosen())
    print(f"{LogMachine.steps} steps in {monotonic() - began:.0f} s", dict(LogMachine.seen))
    assert LogMachine.steps >= 1000
    assert all(LogMachine.seen[what] for what in MET), "a part of the model was never met"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fault_35_a_stage_tried_again_matches_what_it_will_follow(redis_url: str) -> None:
    RetryMachine.url, RetryMachine.steps = redis_url, 0
    RetryMachine.seen = Counter()
    began = monotonic()
    run_state_machine_as_test(RetryMachine, settings=chosen())
    print(f"{RetryMachine.steps} steps in {monotonic() - began:.0f} s", dict(RetryMachine.seen))
    assert RetryMachine.steps >= 1000
    assert all(RetryMachine.seen[what] for what in RETRIES_MET), "a part of the model was never met"
