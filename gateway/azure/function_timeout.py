"""Find out how long the Functions host lets one execution run, from `host.json` and the app's settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from gateway.settings import Settings

DEFAULT_SECONDS = 1800.0  # the host's default on Flex Consumption and Premium
RESERVED_SECONDS = 60.0  # time to stop a chain and to hand its stream over


def limited(settings: Settings, folder: Path) -> Settings:
    """Return these settings, with the platform's limit if they have none. `folder` contains `host.json`.

    Raises ValueError for a `functionTimeout` that is not a time.
    """
    if settings.run_limit:
        return settings
    told = settings.function_timeout or json.loads((folder / "host.json").read_text()).get("functionTimeout")
    return replace(settings, run_limit=run_limit(told))


def run_limit(told: object) -> float:
    """Return after how many seconds a run must have released its stream. 0: never.

    `told` is the host's `functionTimeout`: `hh:mm:ss`, with days before it as `d.hh:mm:ss`, or -1 for no
    limit.
    Raises ValueError for anything else.
    """
    if told is None:
        return DEFAULT_SECONDS - RESERVED_SECONDS
    text = str(told)
    if text == "-1":
        return 0.0
    try:
        days, _, clock = text.rpartition(".") if "." in text.partition(":")[0] else ("0", "", text)
        hours, minutes, seconds = map(int, clock.split(":"))
        whole = ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    except ValueError:
        raise ValueError(f"functionTimeout is no time: {told!r}; write hh:mm:ss, or -1") from None
    return max(whole - RESERVED_SECONDS, 1.0)
