"""Measure how well two sets of times can be separated; 0.5 means not at all."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby


def auc(first: Sequence[int], second: Sequence[int]) -> float:
    """Return how often a time of the first set is above one of the second; ties count half (Mann and
    Whitney's U)."""
    both = sorted([(value, 1) for value in first] + [(value, 0) for value in second])
    ranks, below = 0.0, 0
    for _, group in groupby(both, key=lambda one: one[0]):
        same = [of_first for _, of_first in group]
        ranks += sum(same) * (below + (len(same) + 1) / 2)
        below += len(same)
    return (ranks - len(first) * (len(first) + 1) / 2) / (len(first) * len(second))


def by_threshold(first: Sequence[int], second: Sequence[int]) -> float:
    """Return the share that one threshold classifies correctly: chosen on one half of both sets, tested on
    the other.

    For a yes-or-no classifier this is the area under its curve.
    """
    chosen_first, chosen_second = sorted(first[::2]), sorted(second[::2])
    tried_first, tried_second = sorted(first[1::2]), sorted(second[1::2])
    best = max(
        sorted({*chosen_first, *chosen_second}),
        key=lambda at: abs(_right(chosen_first, chosen_second, at) - 0.5),
    )
    right = _right(tried_first, tried_second, best)
    return right if _right(chosen_first, chosen_second, best) >= 0.5 else 1 - right


def _right(first: Sequence[int], second: Sequence[int], threshold: int) -> float:
    """Return the mean of both shares that "above is of the first" classifies correctly; both sets are
    sorted."""
    above = 1 - bisect_right(first, threshold) / len(first)
    below = bisect_right(second, threshold) / len(second)
    return (above + below) / 2
