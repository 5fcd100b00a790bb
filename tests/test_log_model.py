"""The real log against the plain one, through random lives of a stream (see `tests/model`).

The long run: `pytest -p tests.model.profiles --hypothesis-profile=long tests/test_log_model.py -s`.
"""

from __future__ import annotations

from time import monotonic

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.model.attempt import RESET, SEAMLESS
from tests.model.machine import LogMachine
from tests.model.profiles import chosen

GIVEN_UP = ("given up: wait_limit", "given up: time_limit")
MET = ("told log_lost", "found by sweep or ask", "found in the end", *GIVEN_UP, SEAMLESS, RESET)


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
