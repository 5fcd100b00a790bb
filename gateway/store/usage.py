"""Count the tokens that each owner's ended streams used: today (UTC), and in the last minute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.redis.commands import Commands
from gateway.store.feeds import Feeds
from gateway.store.plans import PlanLimits

DAY_MS, MINUTE_MS = 86_400_000, 60_000
MOST_OWNERS = 100_000  # most owners in the index; the owner with the oldest use is removed first
_USAGE = "usage"


@dataclass(frozen=True, slots=True)
class Used:
    """The tokens that one owner used, at the time `now_ms` of Redis's clock."""

    now_ms: int
    day: tuple[int, int]  # input and output tokens of today (UTC)
    # time in milliseconds, input and output tokens; the oldest first
    minute: tuple[tuple[int, int, int], ...]

    def document(self, limits: PlanLimits | None) -> dict[str, Any]:
        """Return the document of GET /usage. None as `limits` means that the owner has no limits."""
        minute = (sum(one[1] for one in self.minute), sum(one[2] for one in self.minute))
        return {
            "day": _told(*self.day, 0 if limits is None else limits.tokens_per_day),
            "minute": _told(*minute, 0 if limits is None else limits.tokens_per_minute),
        }

    def wait_ms(self, limits: PlanLimits) -> tuple[str, int]:
        """Return the rule that is broken, and for how many ms. The rule is empty if there is room."""
        if limits.tokens_per_day and sum(self.day) >= limits.tokens_per_day:
            return f"{limits.tokens_per_day} tokens a day (UTC)", DAY_MS - self.now_ms % DAY_MS
        left = sum(tokens_in + tokens_out for _, tokens_in, tokens_out in self.minute)
        if not limits.tokens_per_minute or left < limits.tokens_per_minute:
            return "", 0
        free_at = self.now_ms
        for at, tokens_in, tokens_out in self.minute:
            left -= tokens_in + tokens_out
            free_at = at + MINUTE_MS
            if left < limits.tokens_per_minute:
                break
        return f"{limits.tokens_per_minute} tokens a minute", free_at - self.now_ms


class Usage:
    """The usage of all owners. The methods raise StoreUnavailable."""

    def __init__(self, redis: Commands) -> None:
        self._redis = redis

    @staticmethod
    def owners_key() -> str:
        """Return the key of the index of owners that used tokens, ordered by the time of the last use."""
        return f"{{{_USAGE}}}:owners"

    async def of(self, owner: str) -> Used:
        """Return what this owner's streams used today and in the last minute."""
        *_, spent, minute = Feeds.keys(Feeds.id_of(owner))
        clock, told, entries = await self._redis.call_all(
            [
                ("TIME",),
                ("HMGET", spent, "day", "input", "output"),
                ("ZRANGE", minute, 0, -1, "WITHSCORES"),
            ]
        )
        now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
        day, *tokens = (int(one or 0) for one in told)
        recent = []
        for member, score in zip(entries[::2], entries[1::2], strict=True):
            at, (_, tokens_in, tokens_out) = int(float(score)), member.split()
            if at > now_ms - MINUTE_MS:
                recent.append((at, int(tokens_in), int(tokens_out)))
        today = (tokens[0], tokens[1]) if day == now_ms // DAY_MS else (0, 0)
        return Used(now_ms, today, tuple(recent))

    async def note(self, owner: str, at_ms: int) -> None:
        """Record in the index that this owner's streams used tokens at this time."""
        key = self.owners_key()
        await self._redis.call_all(
            [
                ("ZADD", key, at_ms, owner),
                ("ZREMRANGEBYSCORE", key, "-inf", at_ms - 2 * DAY_MS),
                ("ZREMRANGEBYRANK", key, 0, -MOST_OWNERS - 1),
                ("PEXPIRE", key, 2 * DAY_MS),
            ]
        )

    async def forget(self, owner: str) -> None:
        """Remove the owner from the index. The used tokens stay counted, under a hash of the owner's name."""
        await self._redis.call("ZREM", self.owners_key(), owner)

    async def owners(self, most: int) -> list[str]:
        """Return the owners that used tokens in the last two days.

        The owner with the latest use is the first.
        """
        found = await self._redis.call("ZREVRANGE", self.owners_key(), 0, most - 1)
        return [one.decode() for one in found]


def _told(tokens_in: int, tokens_out: int, limit: int) -> dict[str, int | None]:
    total = tokens_in + tokens_out
    return {
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "total_tokens": total,
        "limit": limit or None,
    }
