"""Timer triggers: NCRONTAB with seconds, as the host's timer listener understands it.

Understood in each of the six fields are `*`, `*/n`, numbers, ranges and lists of them.

Invariant: a run that takes longer than its interval delays the next; two never overlap.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from .bindings import BindingError

# second, minute, hour, day of month, month, day of week (0: Sunday)
_BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_LONGEST_S = 366 * 86400


@dataclass(frozen=True, slots=True)
class Schedule:
    """The moments at which a timer is due."""

    fields: tuple[frozenset[int], ...]

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Parse the expression. Raises BindingError."""
        parts = text.split()
        if len(parts) != len(_BOUNDS):
            raise BindingError(f"a schedule has six fields: {text!r}")
        return cls(tuple(_field(part, *bounds) for part, bounds in zip(parts, _BOUNDS, strict=True)))

    def after(self, moment: datetime) -> datetime:
        """Return the first due moment after this one. Raises BindingError if there is none within a year."""
        moment = moment.replace(microsecond=0)
        for _ in range(_LONGEST_S):
            moment += timedelta(seconds=1)
            now = (moment.second, moment.minute, moment.hour, moment.day, moment.month)
            if all(n in f for n, f in zip((*now, moment.isoweekday() % 7), self.fields, strict=True)):
                return moment
        raise BindingError("the schedule is never due")


async def run_timer(schedule: Schedule, run: Callable[[], Awaitable[None]]) -> None:
    """Run the function whenever it is due, until cancelled."""
    while True:
        now = datetime.now(UTC)
        await asyncio.sleep((schedule.after(now) - now).total_seconds())
        await run()


def _field(text: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for item in text.split(","):
        span, _, step = item.partition("/")
        first, _, last = span.partition("-")
        try:
            start = low if first == "*" else int(first)
            end = high if first == "*" else int(last or first)
            found |= set(range(start, end + 1, int(step or "1")))
        except ValueError as error:
            raise BindingError(f"a schedule's field is not understood: {text!r}") from error
    if not found or min(found) < low or max(found) > high:
        raise BindingError(f"a schedule's field is out of bounds: {text!r}")
    return frozenset(found)
