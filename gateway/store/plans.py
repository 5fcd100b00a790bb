"""The limits of each caller: those of the settings, or those of a plan in GATEWAY_PLANS_FILE.

The file is read again when it changes. If the file becomes invalid or is deleted, the limits stay as they
were, and an error is logged. `owners` maps a caller, by the name that `ls` shows, to the name of a plan.
`default` is the plan of all other callers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from gateway.runtime.reread import Reread
from gateway.settings import Settings

LARGEST_FILE = 4 * 1024 * 1024
LARGEST_NUMBER = 2**53
_log = logging.getLogger("holdfast.plans")


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """The limits of one caller. For the two token limits 0 means: no limit."""

    streams: int
    starts_per_minute: int
    bytes: int
    tokens_per_day: int
    tokens_per_minute: int


_NAMES = frozenset(item.name for item in fields(PlanLimits))


class Plans:
    """The limits of all callers. The constructor raises ValueError if the file is invalid."""

    def __init__(self, settings: Settings) -> None:
        self._plain = PlanLimits(
            settings.max_owner_streams,
            settings.max_owner_starts,
            settings.max_owner_bytes,
            settings.owner_tokens_per_day,
            settings.owner_tokens_per_minute,
        )
        self._default = self._plain
        self._owners: Mapping[str, PlanLimits] = {}
        path = Path(settings.plans_file) if settings.plans_file else None
        try:
            self._file = Reread(path, self._take, LARGEST_FILE) if path else None
        except OSError as error:
            raise ValueError(f"GATEWAY_PLANS_FILE cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"GATEWAY_PLANS_FILE: {error}") from None

    def of(self, owner: str) -> PlanLimits:
        """Return the present limits of this caller."""
        if self._file is not None:
            self._file.look(self._wrong, self._right)
        return self._owners.get(owner, self._default)

    def _wrong(self, why: str) -> None:
        _log.error("the plans that were read before hold: the file of plans is wrong: %s", why)

    def _right(self) -> None:
        _log.info("the file of plans is right again")

    def _take(self, text: bytes) -> None:
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):  # the message does not quote the file's text
            raise ValueError("it is not JSON") from None
        self._default, self._owners = self._taken(told)
        _log.info("plans of %d callers", len(self._owners))

    def _taken(self, told: Any) -> tuple[PlanLimits, Mapping[str, PlanLimits]]:
        """Return the default limits, and the limits by owner. Raises ValueError."""
        if not isinstance(told, dict) or not told.keys() <= {"plans", "owners", "default"}:
            raise ValueError("it must be an object with plans, owners and default")
        plans, owners = told.get("plans", {}), told.get("owners", {})
        if not isinstance(plans, dict) or not isinstance(owners, dict):
            raise ValueError("plans and owners must be objects")
        known = {name: self._plan(name, plan) for name, plan in plans.items()}
        named = [*owners.values(), *([told["default"]] if "default" in told else [])]
        if not all(isinstance(name, str) and name in known for name in named):
            raise ValueError("owners and default must name plans that are in it")
        default = known[told["default"]] if "default" in told else self._plain
        return default, {owner: known[name] for owner, name in owners.items()}

    def _plan(self, name: str, plan: Any) -> PlanLimits:
        if not isinstance(plan, dict) or not plan.keys() <= _NAMES:
            raise ValueError(f"the plan {name} may have {', '.join(sorted(_NAMES))}")
        for number in plan.values():
            if type(number) is not int or not 0 < number <= LARGEST_NUMBER:
                raise ValueError(f"the plan {name}: each must be a whole number above 0")
        return replace(self._plain, **plan)
