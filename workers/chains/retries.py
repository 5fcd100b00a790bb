"""Read `retry_on` of a chain's mark: the author's rules for which failures of a stage are temporary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

# True: the same run may succeed later. False: it will not.
# None: the general rule (`workers/attempt/failures.py`).
Judge = Callable[[BaseException], bool | None]


def judges_of(name: str, stages: Sequence[str], given: Any) -> dict[str, Judge]:
    """Return the rule that judges the failures of a stage, by stage. Other stages use the general rule.

    `given`: an exception class, several classes, or a function; or a mapping from stages to these. Raises
    ValueError that names the chain.
    """
    if given is None:
        return {}
    by_stage = given if isinstance(given, Mapping) else dict.fromkeys(stages, given)
    judges = {stage: _judge_of(rule) for stage, rule in by_stage.items()}
    if not judges.keys() <= set(stages) or None in judges.values():
        raise ValueError(
            f"the retry_on of {name} must be exception classes, or a function of an exception, for stages "
            "that it has"
        )
    return {stage: judge for stage, judge in judges.items() if judge is not None}


def _judge_of(rule: Any) -> Judge | None:
    kinds = rule if isinstance(rule, Iterable) and not isinstance(rule, type | str) else (rule,)
    classes = tuple(kinds)
    if classes and all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in classes):
        return lambda error: True if isinstance(error, classes) else None
    return rule if callable(rule) and not isinstance(rule, type) else None
