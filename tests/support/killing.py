"""A chain that asks twice. Each process that runs it kills itself at the next of some points.

GATEWAY_CHAINS names this module in a gateway process of a test. KILLED is a folder with one file for each
point at which a process has died.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from gateway.store.log import Log
from gateway.streams.create import Creation
from gateway.writing.writer import Writer
from tests.support.asking import Answers, begins, ends
from workers.chains.registry import chain
from workers.checkpoints.draft import Draft

POINTS = (
    "before the question",
    "with the question stored, and the end of the stream not",
    "with the end of the stream written",
    "before the answer is taken",
    "with the answer taken, and no job in the queue",
    "in the run that goes on",
    "with its own question stored, and its end not",
)


def _die_at(point: str) -> None:
    if point not in POINTS or "KILLED" not in os.environ:
        return
    try:
        Path(os.environ["KILLED"], point).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _dying(kind: type, name: str, *, before: str = "", after: Callable[..., str] = lambda *_: "") -> None:
    plain = getattr(kind, name)

    async def dying(self: Any, *given: Any, **named: Any) -> Any:
        if before and (name != "resume" or len(given) > 4):  # a call that only reads has no answers
            _die_at(before)
        answer = await plain(self, *given, **named)
        _die_at(after(self, *given))
        return answer

    setattr(kind, name, dying)


def _kept(draft: Draft, *_: Any) -> str:
    """The first run's thread is new."""
    return POINTS[1] if draft._is_new else POINTS[6]


def _ended(writer: Writer, *_: Any) -> str:
    return POINTS[2] if writer.final is not None else ""


if "KILLED" in os.environ:
    _dying(Draft, "keep", after=_kept)
    _dying(Writer, "run", after=_ended)
    _dying(Log, "resume", before=POINTS[3])
    plain_send = Creation.send

    async def _send(self: Creation, record: Any, followed: bool) -> None:
        if record.resumes:
            _die_at(POINTS[4])
        await plain_send(self, record, followed)

    Creation.send = _send  # type: ignore[method-assign]


async def _asks(state: Answers) -> Any:
    _die_at(POINTS[0])
    first = interrupt("first?")
    _die_at(POINTS[5])
    return {"said": {"first": first, "second": interrupt("second?")}}


@chain("asks-and-dies")
def asks_and_dies(_: Any) -> Any:
    builder: Any = StateGraph(Answers)
    builder.add_node("begins", begins)
    builder.add_node("ask", _asks)
    builder.add_node("last", ends)
    builder.add_edge(START, "begins")
    builder.add_edge("begins", "ask")
    builder.add_edge("ask", "last")
    return builder.compile()
