"""Threads of LangGraph runs: each run keeps the state that it began with, and the run that it went on from.

A thread is a name of its caller's, and stands for its newest run. A run without one is a thread of its own,
which has the run's id.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.base.serving import replayed
from gateway.formats.langgraph.names import assistant_id
from gateway.formats.langgraph.projection import Run, message
from gateway.formats.langgraph.request import Asked
from gateway.protocol import Status, sse
from gateway.protocol.errors import (
    HoldfastError,
    Invalid,
    KeyReused,
    OverQuota,
    StreamGone,
    StreamNotFound,
    ThreadBusy,
)
from gateway.store.conversations import OF_STREAM, Conversation
from gateway.store.record import Record
from gateway.store.threads import State, lifetimes
from gateway.streams.graph_state import GraphState, StateWanted
from gateway.streams.room import Document, HeldList
from gateway.streams.service import Gateway
from gateway.streams.start import MAX_METADATA_BYTES, check_thread
from gateway.web import request_head
from gateway.web.answers import json_answer, problem

RUN = "langgraph run"
_FULL_SECONDS = 3600  # after which a caller with too many threads may try again
MOST_WALKED = 100
_KEYS = "langgraph key"
_TYPES = {"user": "human", "assistant": "ai", "tool": "tool"}  # any other role is a system's


@dataclass(frozen=True, slots=True)
class Began:
    """How a run began: its state, the run before it, and the digest of what was asked."""

    given: Mapping[str, Any]
    before: str = ""
    digest: str = ""
    thread: str = ""  # empty: it was started in another format
    key: str = ""  # its Idempotency-Key
    modes: Sequence[str] = ("values",)  # that it was started with
    subgraphs: bool = False

    def kept(self) -> dict[str, Any]:
        """Its fields as JSON; the state is not copied."""
        return {
            "given": self.given,
            "before": self.before,
            "digest": self.digest,
            "thread": self.thread,
            "key": self.key,
            "modes": list(self.modes),
            "subgraphs": self.subgraphs,
        }


@dataclass(frozen=True, slots=True)
class Base:
    """What a new run goes on from; `again` is the run that the same POST has started already."""

    newest: str
    before: str
    again: tuple[Record, Began] | None = None
    waits: bool = False  # the new run begins when those that are there have ended
    undone: frozenset[str] = frozenset()  # runs of which the new one leaves nothing
    checkpoint: str = ""  # of a graph's, from which the new run goes on


@dataclass(frozen=True, slots=True)
class Thread:
    """One caller's thread."""

    gateway: Gateway
    owner: str
    name: str

    async def stands(self) -> State:
        """Who has the turn, and which is the newest run."""
        return await self.gateway.parts.threads.look(self.owner, self.name)

    async def newest(self) -> Record | None:
        """The newest run, as long as it is kept."""
        return await self.found((await self.stands()).newest)

    async def found(self, run_id: str) -> Record | None:
        """One of the caller's runs, or None."""
        try:
            return await self.gateway.find(run_id, self.owner) if run_id else None
        except (StreamNotFound, StreamGone):
            return None

    async def began(self, record: Record) -> Began:
        """How a run began; of one that was started in another way that is not told."""
        kept = await self.gateway.parts.conversations.kept(self.owner, record.id, RUN)
        return Began(**kept) if kept else Began({})

    async def own(self, run_id: str) -> tuple[Record, Began]:
        """A run of this very thread. Raises StreamNotFound or StreamGone."""
        record = await self.gateway.find(run_id, self.owner)
        began = await self.began(record)
        if (began.thread or record.thread) not in ("", self.name):
            raise StreamNotFound
        return record, began

    def projection(
        self, record: Record, began: Began, modes: Sequence[str] = (), *, subgraphs: bool = False
    ) -> Run:
        """A run's frames, of these modes."""
        return Run(record.id, self.name, began.given, modes, subgraphs=subgraphs)

    async def state(self, record: Record, began: Began) -> Run:
        """A run as it stands now. Raises StreamGone."""
        return await replayed(self.gateway, record, functools.partial(self.projection, record, began))

    async def base(self, asked: Asked) -> Base:
        """The newest run, and the one to go on from; nothing is changed.

        Raises ThreadBusy, or Invalid for a run to go on from that there is not.
        """
        stands = await self.stands()
        newest = stands.newest
        record = await self.found(newest)
        runs = record is not None and not record.ended
        before = newest
        if record is not None and (asked.key or runs):
            began = await self.began(record)
            if began.digest == asked.digest:
                return Base(newest, began.before, again=(record, began))
            if runs and asked.strategy == "reject":
                raise ThreadBusy(record.id)
        undone = frozenset(stands.streams if runs and asked.strategy == "rollback" else ())
        while before in undone:
            displaced = await self.found(before)
            before = (await self.began(displaced)).before if displaced is not None else ""
        waits = runs and asked.strategy == "enqueue"
        threads = self.gateway.parts.threads
        if asked.checkpoint and await threads.has_checkpoints(self.owner, self.name):
            if not await self.graphs(checkpoint=asked.checkpoint):
                raise Invalid("checkpoint.checkpoint_id", "must be the id of a checkpoint of this thread")
            return Base(newest, before, waits=waits, undone=undone, checkpoint=asked.checkpoint)
        if asked.checkpoint and await self.found(asked.checkpoint) is None:
            raise Invalid("checkpoint.checkpoint_id", "must be the id of a run that is still kept")
        return Base(newest, asked.checkpoint or before, waits=waits, undone=undone)

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

    async def messages(self, run_id: str, undone: Collection[str] = ()) -> list[dict[str, Any]]:
        """The messages that a next run goes on from; those of `undone` runs are not remembered."""
        record = await self.found(run_id)
        began = None if record is None else await self.began(record)
        if self.name and (graph := await self.graph()) is not None and isinstance(graph.values, dict):
            said = graph.values.get("messages")
            held = (
                HeldList(one for one in said if isinstance(one, dict))
                if isinstance(said, list)
                else HeldList()
            )
            held.share = graph.share
            return held
        if record is None or began is None or not began.thread:
            return await self.remembered(undone) if self.name else []
        values = (await self.state(record, began)).values()
        messages = values.get("messages") if isinstance(values, dict) else None
        return [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []

    def metadata(self, state: State) -> dict[str, Any]:
        """What a client has said of the thread, and the graph of its newest run."""
        ran = {"graph_id": state.chain, "assistant_id": assistant_id(state.chain)} if state.chain else {}
        return {**state.metadata, **ran}

    async def status(self, state: State) -> str:
        """`busy`, `interrupted` (a question is open, or the newest run was cancelled), `error` or `idle`."""
        status = await self.gateway.parts.turns.status(self.owner, state)
        if status != "idle":
            return status
        newest = await self.found(state.newest)
        return "interrupted" if newest is not None and newest.status is Status.CANCELLED else status

    async def describe(self, metadata: Mapping[str, Any]) -> None:
        """Keep this of the thread. Raises Invalid, or OverQuota where the caller has too many threads."""
        if len(sse.dumps(metadata)) > MAX_METADATA_BYTES:
            raise Invalid("metadata", f"must be at most {MAX_METADATA_BYTES} bytes of JSON")
        settings, threads = self.gateway.settings, self.gateway.parts.threads
        thread_ms, _ = lifetimes(settings)
        if not await threads.note(
            self.owner, self.name, thread_ms=thread_ms, most=settings.max_owner_threads
        ):
            raise OverQuota(f"a caller may have {settings.max_owner_threads} threads", _FULL_SECONDS)
        await threads.describe(self.owner, self.name, metadata, thread_ms=thread_ms)

    async def graph(self) -> GraphState | None:
        """How the graph of this thread stands by its checkpoints."""
        gateway = self.gateway
        if not await gateway.parts.threads.has_checkpoints(self.owner, self.name):
            return None
        return await gateway.state_of(gateway.parts.redis, self.owner, self.name, gateway.room)

    async def graphs(self, **wanted: Any) -> Sequence[GraphState]:
        """Checkpoints of the graph of this thread, as `StateWanted` names them."""
        gateway = self.gateway
        if not await gateway.parts.threads.has_checkpoints(self.owner, self.name):
            return []
        redis, room = gateway.parts.redis, gateway.room
        return await gateway.states_of(redis, self.owner, self.name, room, StateWanted(**wanted))

    async def values(self, record: Record, began: Began) -> dict[str, Any]:
        """The state that a run has left: its graph's by the checkpoint, where that is here."""
        if (graph := await self.graph()) is not None and isinstance(graph.values, dict):
            return Document.of({"messages": [], **graph.values}, graph.share, graph.size)
        values = (await self.state(record, began)).values()
        known = values if isinstance(values, dict) else {}
        return {name: value for name, value in known.items() if name != "__interrupt__"}

    async def remembered(self, undone: Collection[str] = ()) -> list[dict[str, Any]]:
        """The messages that the thread itself remembers, as LangChain writes them."""
        memory = await self.gateway.parts.threads.memory(self.owner, self.name, *undone)
        return [_written(one, f"{self.name}:{number}") for number, one in enumerate(memory)]

    async def keep(self, record: Record, began: Began) -> None:
        """How a run began."""
        await self.gateway.parts.conversations.keep(self.owner, record.id, RUN, began.kept())

    async def end(self) -> None:
        """Delete it and its runs, with all that is kept of them. Raises ThreadBusy."""
        conversations, parts = self.gateway.parts.conversations, self.gateway.parts
        names: list[tuple[str, str]] = []
        for stream_id in await parts.threads.streams(self.owner, self.name):
            names.append((OF_STREAM, stream_id))
            kept = await conversations.kept(self.owner, stream_id, RUN)
            if kept and kept.get("key"):
                names.append((_KEYS, f"{self.name}\0{kept['key']}"))
        known = {name for kind, name in names if kind == OF_STREAM}
        ended = await parts.turns.end(self.owner, self.name)
        await parts.creation.forget(self.owner, ended)
        names += [(OF_STREAM, stream_id) for stream_id in ended if stream_id not in known]
        await conversations.drop(self.owner, names)

    async def all(self) -> AsyncGenerator[tuple[Record, Began], None]:
        """Its runs, the newest first, on every branch; 100 at most."""
        ids = await self.gateway.parts.threads.streams(self.owner, self.name)
        for run_id in ids[:MOST_WALKED]:
            if (record := await self.found(run_id)) is not None:
                yield record, await self.began(record)

    async def history(self, since: str = "") -> AsyncGenerator[tuple[Record, Began], None]:
        """Its runs, the newest first, or those before one, as far back as they are kept; 100 at most."""
        run_id = since or (await self.stands()).newest
        for number in range(MOST_WALKED):
            if (record := await self.found(run_id)) is None:
                return
            began = await self.began(record)
            if number or not since:
                yield record, began
            run_id = began.before


def name_of(gateway: Gateway, request: Request) -> str:
    """The thread of the path. Raises Invalid or NoOwner."""
    request_head.check_apart(gateway)
    name: str = request.path_params["thread"]
    check_thread("thread_id", name)
    return name


def _written(one: Mapping[str, Any], message_id: str) -> dict[str, Any]:
    """A message of ours as LangChain writes it."""
    kind = _TYPES.get(one["role"], "system")
    more = {name: one[name] for name in ("name", "status", "tool_call_id") if one.get(name)}
    told = message(kind, one.get("content") or "", one.get("id") or message_id, **more)
    if calls := one.get("tool_calls"):
        told["tool_calls"] = [
            {
                "name": call["function"]["name"],
                "args": json.loads(call["function"]["arguments"]),
                "id": call["id"],
                "type": "tool_call",
            }
            for call in calls
        ]
    return told


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
