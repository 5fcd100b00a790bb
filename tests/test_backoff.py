"""The pauses between attempts grow up to a limit, and are short again after a time without attempts."""

from __future__ import annotations

from gateway.runtime.backoff import Backoff


def test_the_first_try_need_not_wait_and_the_next_waits_half_to_all_of_the_first_pause() -> None:
    backoff = Backoff(1.0, 4.0, forget=60.0)
    assert backoff.left(0.0) == 0.0
    backoff.tried(0.0)
    assert 0.5 <= backoff.left(0.0) <= 1.0
    assert backoff.left(1.0) == 0.0


def test_pauses_double_up_to_the_longest_and_never_beyond() -> None:
    backoff, now = Backoff(1.0, 4.0, forget=60.0), 0.0
    for longest in (1.0, 2.0, 4.0, 4.0, 4.0):
        backoff.tried(now)
        left = backoff.left(now)
        assert longest / 2 <= left <= longest
        now += left


def test_after_a_calm_or_a_good_try_the_next_is_a_first_one() -> None:
    backoff = Backoff(1.0, 64.0, forget=10.0)
    for now in (0.0, 1.0, 2.0):
        backoff.tried(now)
    assert backoff.left(2.0) >= 2.0
    backoff.reset()
    assert backoff.left(2.0) == 0.0
    backoff.tried(3.0)
    backoff.tried(4.0)
    backoff.tried(20.0)
    assert backoff.left(20.0) <= 1.0
