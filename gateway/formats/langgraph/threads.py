"""Threads of LangGraph runs: each run keeps the state that it began with, and the run that it went on from.

A thread is a name of its caller's, and stands for its newest run. A run without one is a thread of its own,
which has the run's id.
"""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.base.serving import replayed
from gateway.formats.langgraph.projection import Run
from gateway.formats.langgraph.request import Asked
from gateway.protocol.errors import (
    ConversationBusy,
    HoldfastError,
    Invalid,
    KeyReused,
    StreamGone,
    StreamNotFound,
)
from gateway.store.conversations import Conversation
from gateway.store.record import Record
from gateway.streams.service import Gateway
from gateway.web.answers import json_answer, problem

_THREADS, _RUN = "langgraph thread", "langgraph run"
MOST_WALKED = 100
_KEYS = "langgraph key"
_NAME = re.compile(r"(?!\.{1,2}$)[^/\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,200}")


@dataclass(frozen=True, slots=True)
class Began:
    """How a run began: its state, the run before it, and the digest of what was asked."""

    given: Mapping[str, Any]
    before: str = ""
    digest: str = ""
    thread: str = ""  # empty: it was started in another format, and belongs to none

    def kept(self) -> dict[str, Any]:
        """Its fields as JSON; the state is not copied."""
        return {"given": self.given, "before": self.before, "digest": self.digest, "thread": self.thread}


@dataclass(frozen=True, slots=True)
class Base:
    """What a new run goes on from; `again` is the run that the same POST has started already."""

    newest: Conversation
    before: str
    again: tuple[Record, Began] | None = None
    running: Record | None = None  # it is to end when the new one has its place


@dataclass(frozen=True, slots=True)
class Thread:
    """One caller's thread."""

    gateway: Gateway
    owner: str
    name: str

    async def newest(self) -> Conversation:
        """The newest run."""
        return await self.gateway.parts.conversations.look(_THREADS, self.owner, self.name)

    async def found(self, run_id: str) -> Record | None:
        """One of the caller's runs, or None."""
        try:
            return await self.gateway.find(run_id, self.owner) if run_id else None
        except (StreamNotFound, StreamGone):
            return None

    async def began(self, record: Record) -> Began:
        """How a run began; of one that was started in another way that is not told."""
        kept = await self.gateway.parts.conversations.kept(self.owner, record.id, _RUN)
        return Began(**kept) if kept else Began({})

    async def own(self, run_id: str) -> tuple[Record, Began]:
        """A run of this very thread. Raises StreamNotFound or StreamGone."""
        record = await self.gateway.find(run_id, self.owner)
        began = await self.began(record)
        if began.thread not in ("", self.name):
            raise StreamNotFound
        return record, began

    def projection(self, record: Record, began: Began, modes: Sequence[str] = ()) -> Run:
        """A run's frames, of these modes."""
        return Run(record.id, self.name, began.given, modes)

    async def state(self, record: Record, began: Began) -> Run:
        """A run as it stands now. Raises StreamGone."""
        return await replayed(self.gateway, record, functools.partial(self.projection, record, began))

    async def base(self, asked: Asked) -> Base:
        """The newest run, and the one to go on from; nothing is changed.

        Raises ConversationBusy, or Invalid for a run to go on from that there is not.
        """
        newest = await self.newest()
        record = await self.found(newest.stream)
        running = record if record is not None and not record.ended else None
        before = newest.stream
        if record is not None and (asked.key or running):
            began = await self.began(record)
            if began.digest == asked.digest:
                return Base(newest, began.before, again=(record, began))
            if running and asked.strategy == "reject":
                raise ConversationBusy
            before = began.before if running and asked.strategy == "rollback" else before
        if asked.checkpoint and await self.found(asked.checkpoint) is None:
            raise Invalid("checkpoint.checkpoint_id", "must be the id of a run that is still kept")
        return Base(newest, asked.checkpoint or before, running=running)

    async def of_key(self, asked: Asked) -> Record | None:
        """The run that this POST has started with its Idempotency-Key, if it did. Raises KeyReused."""
        known = await self.gateway.parts.conversations.look(_KEYS, self.owner, self._keyed(asked))
        if known.stream and known.state != asked.digest:
            raise KeyReused
        return await self.found(known.stream)

    async def remember(self, asked: Asked, record: Record) -> None:
        """That this key has started this run."""
        name, conversations = self._keyed(asked), self.gateway.parts.conversations
        await conversations.turn(_KEYS, self.owner, name, Conversation(), record.id, asked.digest)

    def _keyed(self, asked: Asked) -> str:
        return f"{self.name}\0{asked.key}"

    async def messages(self, run_id: str) -> list[dict[str, Any]]:
        """The messages that a next run goes on from; none after a run that is not kept any more."""
        record = await self.found(run_id)
        if record is None:
            return []
        run = await self.state(record, await self.began(record))
        messages: list[dict[str, Any]] = run.values()["messages"]
        return messages

    async def keep(self, record: Record, began: Began) -> None:
        """How a run began."""
        await self.gateway.parts.conversations.keep(self.owner, record.id, _RUN, began.kept())

    async def turn(self, before: Conversation, run_id: str) -> bool:
        """Make a run the newest one, from what it was; False when another went on from there first."""
        return await self.gateway.parts.conversations.turn(_THREADS, self.owner, self.name, before, run_id)

    async def forget(self, seen: Conversation) -> bool:
        """The thread, if that is still how it stands; its runs are kept as long as any."""
        return await self.gateway.parts.conversations.forget(_THREADS, self.owner, self.name, seen)

    async def history(self, since: str = "") -> AsyncGenerator[tuple[Record, Began], None]:
        """Its runs, the newest first, or those before one, as far back as they are kept; 100 at most."""
        run_id = since or (await self.newest()).stream
        for number in range(MOST_WALKED):
            if (record := await self.found(run_id)) is None:
                return
            began = await self.began(record)
            if number or not since:
                yield record, began
            run_id = began.before


def name_of(request: Request) -> str:
    """The thread of the path. Raises Invalid."""
    name: str = request.path_params["thread"]
    if not _NAME.fullmatch(name):
        raise Invalid("thread_id", "must be 1 to 200 characters, without slashes and control characters")
    return name


def whole_number(field: str, given: Any, most: int) -> int:
    """A parameter that is a whole number; larger ones count as `most`. Raises Invalid."""
    if not re.fullmatch(r"[0-9]{1,4}", str(given), re.ASCII):
        raise Invalid(field, "must be a whole number")
    return min(int(given), most)


def refused(error: HoldfastError) -> Response:
    """An error as LangGraph's server tells it, with our code."""
    kept = ("retry-after", "www-authenticate")
    headers = {name: value for name, value in problem(error).headers.items() if name in kept}
    return json_answer({"detail": error.detail, "code": error.code}, error.status, headers)
