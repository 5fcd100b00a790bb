"""Tasks that begin at once."""

from __future__ import annotations

import asyncio
import sys

import pytest

from gateway.runtime.tasks import begin


async def test_a_task_has_come_to_its_first_wait_when_it_is_handed_out() -> None:
    steps: list[str] = []
    gate = asyncio.Event()

    async def work() -> str:
        steps.append(asyncio.current_task().get_name())  # type: ignore[union-attr]
        await gate.wait()
        return "done"

    task = begin(work(), name="mine")
    assert steps == (["mine"] if sys.version_info >= (3, 12) else [])
    assert not task.done()
    gate.set()
    assert await task == "done"


async def test_what_it_raises_before_its_first_wait_is_raised_where_it_is_awaited() -> None:
    async def work() -> None:
        raise ValueError("at once")

    task = begin(work(), name="mine")
    with pytest.raises(ValueError, match="at once"):
        await task
