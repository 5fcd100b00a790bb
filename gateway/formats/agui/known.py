"""Runs by the names that their clients have given them: which stream a run is, and a thread's newest one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.formats.agui.projection import RunEvents
from gateway.formats.agui.request import Run
from gateway.protocol.errors import StoreUnavailable, StreamGone, StreamNotFound
from gateway.store.record import Record
from gateway.streams.service import Gateway
from gateway.web import request_head

KIND = "agui"  # what is kept of a stream
_RUN, _NAMED, _THREAD = "agui run", "agui name", "agui thread"
TURN_TRIES = 100
MOST_RESUMED = 100  # answers by our own API that a thread's newest stream is looked for behind


async def run_known(gateway: Gateway, owner: str, run: Run) -> Record | None:
    """The stream that a run is, if it has begun. Raises StreamGone for one past its retention."""
    known = await gateway.parts.conversations.look(_RUN, owner, run.key)
    if not known.stream:
        return None
    try:
        record = await gateway.find(known.stream, owner)
    except StreamNotFound:
        return None
    request_head.note(record)
    return record


async def begun_as(gateway: Gateway, owner: str, run: Run) -> Record:
    """The stream of a run; without a thread the newest run of that name, or the stream that has this id.

    Raises StreamNotFound or StreamGone.
    """
    if run.thread:
        record = await run_known(gateway, owner, run)
        if record is None:
            raise StreamNotFound
        return record
    known = await gateway.parts.conversations.look(_NAMED, owner, _named(run))
    record = await gateway.find(known.stream or run.name, owner)
    if record.chain != run.chain:
        raise StreamNotFound
    return record


async def newest_of(gateway: Gateway, owner: str, run: Run) -> Record | None:
    """The newest stream of a run's thread; where its question was answered elsewhere, what goes on."""
    known = await gateway.parts.conversations.look(_THREAD, owner, _threaded(run))
    if not known.stream:
        return None
    try:
        record = await gateway.find(known.stream, owner)
        for _ in range(MOST_RESUMED):
            if not record.resumed_by:
                break
            record = await gateway.find(record.resumed_by, owner)
    except (StreamNotFound, StreamGone):
        return None
    return record


async def keep(gateway: Gateway, owner: str, run: Run, record: Record, kept: Mapping[str, Any]) -> None:
    """What is known of a run from now on: what it was asked with, its names, and its thread's newest."""
    await gateway.parts.conversations.keep(owner, record.id, KIND, kept)
    for kind, name in ((_NAMED, _named(run)), (_THREAD, _threaded(run)), (_RUN, run.key)):
        await _point(gateway, kind, owner, name, record)


async def projection_of(gateway: Gateway, record: Record) -> RunEvents:
    """A stream's events; one that was started in another format is a run of its own name."""
    kept = await gateway.parts.conversations.kept(record.owner, record.id, KIND)
    unnamed = {"thread": record.thread or record.id, "run": record.id, "messages": []}
    return RunEvents(record.id, kept or unnamed)


async def _point(gateway: Gateway, kind: str, owner: str, name: str, record: Record) -> None:
    """Have a name mean this stream, unless it means a newer one.

    Whoever loses a turn has lost it to another start under this very name: it takes many to lose all of them.
    """
    conversations = gateway.parts.conversations
    for _ in range(TURN_TRIES):
        before = await conversations.look(kind, owner, name)
        if before.stream == record.id or (before.stream and before.state > record.created_ms):
            return
        if await conversations.turn(kind, owner, name, before, record.id, record.created_ms):
            return
    raise StoreUnavailable("too many runs of this name start at once")


def _named(run: Run) -> str:
    return f"{run.chain}\0{run.name}"


def _threaded(run: Run) -> str:
    return f"{run.chain}\0{run.thread}"
