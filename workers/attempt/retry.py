"""Decide when a stage is retried after its model has failed: how often, and after which pause.

Only temporary failures are retried. The pauses grow, with jitter, and a `Retry-After` is obeyed. If it asks
for more than a minute, the stage is not retried: the caller can retry later, and meanwhile no worker's place
is used.
"""

from __future__ import annotations

import random
import re
from email.utils import parsedate_to_datetime
from time import time

from workers.attempt.failures import may_pass

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 20.0
LONGEST_ASKED_SECONDS = 60.0
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{0,12})?")


def pause(error: BaseException, tries: int, most: int) -> float | None:
    """Return the seconds to wait before the next try, after `tries` of `most`. None: do not try again."""
    if tries >= most or not may_pass(error):
        return None
    grown: float = min(FIRST_SECONDS * 2 ** (tries - 1), LONGEST_SECONDS)
    asked = asked_seconds(error)
    if asked > LONGEST_ASKED_SECONDS:
        return None
    return asked + grown * random.uniform(0.5, 1.0)


def asked_seconds(error: BaseException) -> float:
    """Return how many seconds the server asks to wait, with fractions. 0: it does not ask.

    `retry-after-ms` and `x-ms-retry-after-ms` are headers of Azure OpenAI, in milliseconds. They are more
    exact than `Retry-After`, which is in seconds or a date (RFC 9110, 10.2.3; many servers send fractions of
    seconds).
    """
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    for name, unit in (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0)):
        said = str(headers.get(name, "")).strip()
        if _NUMBER.fullmatch(said):
            return float(said) * unit
    try:
        return max(parsedate_to_datetime(said).timestamp() - time(), 0.0) if said else 0.0
    except (ValueError, OverflowError):  # OverflowError: a date with an impossible number
        return 0.0
