"""Processes that send a webhook, and that kill themselves at the next of some points.

GATEWAY_CHAINS names this module in a gateway process of a test. KILLED is a folder with one file for each
point at which a process has died.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway.store.outbox import Outbox
from gateway.webhooks.sender import Poster

POINTS = tuple(
    f"{when} {what}" for what in ("take", "fill", "send", "settle") for when in ("before", "after")
)


def _die_at(point: str) -> None:
    try:
        Path(os.environ["KILLED"], point).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _dying(kind: type, what: str) -> None:
    plain: Callable[..., Awaitable[Any]] = getattr(kind, what)

    async def dying(self: Any, *given: Any, **named: Any) -> Any:
        _die_at(f"before {what}")
        answer = await plain(self, *given, **named)
        _die_at(f"after {what}")
        return answer

    setattr(kind, what, dying)


if "KILLED" in os.environ:
    for one in ("take", "fill", "settle"):
        _dying(Outbox, one)
    _dying(Poster, "send")
