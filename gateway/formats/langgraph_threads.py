"""Threads of LangGraph runs: each run keeps the state that it began with, and the run that it went on from.

A thread is a name of its caller's, and stands for its newest run. A run without one is a thread of its own,
which has the run's id.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.answers import json_answer
from gateway.conversations import Conversation
from gateway.errors import ConversationBusy, HoldfastError, Invalid, StreamGone, StreamNotFound
from gateway.formats.langgraph import Run
from gateway.formats.langgraph_request import Asked
from gateway.formats.serving import replayed
from gateway.gateway import Gateway
from gateway.record import Record

_THREADS, _RUN = "langgraph thread", "langgraph run"
MOST_LISTED = 100
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,200}")


@dataclass(frozen=True, slots=True)
class Began:
    """How a run began: its state, the run before it, and the digest of what was asked."""

    given: Mapping[str, Any]
    before: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Thread:
    """One caller's thread."""

    gateway: Gateway
    owner: str
    name: str

    async def newest(self) -> Conversation:
        """The newest run."""
        return await self.gateway.parts.conversations.look(_THREADS, self.owner, self.name)

    async def run(self, run_id: str) -> Record:
        """One of the caller's runs. Raises StreamNotFound or StreamGone."""
        return await self.gateway.find(run_id, self.owner)

    async def found(self, run_id: str) -> Record | None:
        """The same, or None."""
        try:
            return await self.run(run_id) if run_id else None
        except (StreamNotFound, StreamGone):
            return None

    async def began(self, record: Record) -> Began:
        """How a run began; of one that was started in another way that is not told."""
        kept = await self.gateway.parts.conversations.kept(self.owner, record.id, _RUN)
        return Began(kept["given"], kept["before"], kept["digest"]) if kept else Began({})

    async def projection(self, record: Record, modes: Sequence[str] = ()) -> Run:
        """A run's frames, of these modes."""
        return Run(record.id, self.name, (await self.began(record)).given, modes)

    async def state(self, record: Record) -> Run:
        """A run as it stands now. Raises StreamGone."""
        began = await self.began(record)
        return await replayed(self.gateway, record, functools.partial(Run, record.id, self.name, began.given))

    async def base(self, asked: Asked) -> tuple[Conversation, str, Record | None]:
        """The newest run, the one to go on from, and the newest one when the same POST has started it.

        Ends the newest one where the client wants that. Raises ConversationBusy, or Invalid for a run to go
        on from that there is not.
        """
        newest = await self.newest()
        record = await self.found(newest.stream)
        before = newest.stream
        if record is not None and (asked.key or not record.ended):
            began = await self.began(record)
            if began.digest == asked.digest:
                return newest, began.before, record
        if record is not None and not record.ended:
            if asked.strategy == "reject":
                raise ConversationBusy
            await self.gateway.cancel(record.id, self.owner)
            before = began.before if asked.strategy == "rollback" else before
        if asked.checkpoint and await self.found(asked.checkpoint) is None:
            raise Invalid("checkpoint.checkpoint_id", "must be the id of a run that is still kept")
        return newest, asked.checkpoint or before, None

    async def messages(self, run_id: str) -> list[dict[str, Any]]:
        """The messages that a next run goes on from; none after a run that is not kept any more."""
        record = await self.found(run_id)
        if record is None:
            return []
        messages: list[dict[str, Any]] = (await self.state(record)).values()["messages"]
        return messages

    async def keep(self, record: Record, began: Began) -> None:
        """How a run began."""
        state = {"given": began.given, "before": began.before, "digest": began.digest}
        await self.gateway.parts.conversations.keep(self.owner, record.id, _RUN, state)

    async def turn(self, before: Conversation, run_id: str) -> bool:
        """Make a run the newest one, from what it was; False when another went on from there first."""
        return await self.gateway.parts.conversations.turn(_THREADS, self.owner, self.name, before, run_id)

    async def forget(self) -> None:
        """The thread; its runs are kept as long as any."""
        await self.gateway.parts.conversations.forget(_THREADS, self.owner, self.name)

    async def history(self, most: int) -> list[tuple[Record, Began]]:
        """Its runs, the newest first, as far back as they are kept."""
        found: list[tuple[Record, Began]] = []
        run_id = (await self.newest()).stream
        while len(found) < most and (record := await self.found(run_id)) is not None:
            found.append((record, await self.began(record)))
            run_id = found[-1][1].before
        return found


def name_of(request: Request) -> str:
    """The thread of the path. Raises Invalid."""
    name: str = request.path_params["thread"]
    if not _NAME.fullmatch(name):
        raise Invalid("thread_id", "must be 1 to 200 characters, none of them a control character")
    return name


def most_of(limit: Any) -> int:
    """How many are to be listed. Raises Invalid."""
    text = "10" if limit is None else str(limit)
    if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII):
        raise Invalid("limit", "must be a whole number")
    return min(int(text), MOST_LISTED)


def refused(error: HoldfastError) -> Response:
    """An error as LangGraph's server tells it, with our code."""
    after = {} if error.retry_after_seconds is None else {"retry-after": str(error.retry_after_seconds)}
    return json_answer({"detail": error.detail, "code": error.code}, error.status, after)
