"""Threads of LangGraph runs. For each run are stored its first state and the run from which it continued.

A thread is a name that the caller chose, and it refers to the thread's newest run. A run that was started
without a thread has a separate thread, whose name is the run's id.
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
_FULL_SECONDS = 3600  # the `retry-after` for a caller that has too many threads
MOST_WALKED = 100
_KEYS = "langgraph key"
_TYPES = {"user": "human", "assistant": "ai", "tool": "tool"}  # any other role becomes `system`


@dataclass(frozen=True, slots=True)
class Began:
    """How a run began: its first state, the run from which it continued, and the digest of its request."""

    given: Mapping[str, Any]
    before: str = ""
    digest: str = ""
    thread: str = ""  # empty: the run was started in another format
    key: str = ""  # the request's Idempotency-Key
    modes: Sequence[str] = ("values",)  # the `stream_mode` of the request
    subgraphs: bool = False

    def kept(self) -> dict[str, Any]:
        """Return the fields as a JSON object. The state in it is not a copy."""
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
    """The point from which a new run continues.

    `newest` is the thread's newest run, and `before` the run from which the new run continues. `again` is the
    run that the same POST has already started.
    """

    newest: str
    before: str
    again: tuple[Record, Began] | None = None
    waits: bool = False  # the new run begins when the thread's present runs have ended
    undone: frozenset[str] = frozenset()  # ids of the runs that the new run rolls back
    checkpoint: str = ""  # id of the graph's checkpoint from which the new run continues


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread of one caller."""

    gateway: Gateway
    owner: str
    name: str

    async def stands(self) -> State:
        """Return the thread's state in the store: the stream that has the turn, the newest run, and more."""
        return await self.gateway.parts.threads.look(self.owner, self.name)

    async def newest(self) -> Record | None:
        """Return the newest run; None if there is no run, or if it is no longer stored."""
        return await self.found((await self.stands()).newest)

    async def found(self, run_id: str) -> Record | None:
        """Return the caller's run with this id, or None."""
        try:
            return await self.gateway.find(run_id, self.owner) if run_id else None
        except (StreamNotFound, StreamGone):
            return None

    async def began(self, record: Record) -> Began:
        """Return how a run began; an empty `Began` if the run was started in another format."""
        kept = await self.gateway.parts.conversations.kept(self.owner, record.id, RUN)
        return Began(**kept) if kept else Began({})

    async def own(self, run_id: str) -> tuple[Record, Began]:
        """Return a run of this thread.

        Raises StreamNotFound (also for a run of another thread) or StreamGone.
        """
        record = await self.gateway.find(run_id, self.owner)
        began = await self.began(record)
        if (began.thread or record.thread) not in ("", self.name):
            raise StreamNotFound
        return record, began

    def projection(
        self, record: Record, began: Began, modes: Sequence[str] = (), *, subgraphs: bool = False
    ) -> Run:
        """Return the projection that makes a run's frames in these modes."""
        return Run(record.id, self.name, began.given, modes, subgraphs=subgraphs)

    async def state(self, record: Record, began: Began) -> Run:
        """Return a run's projection after all events so far. Raises StreamGone."""
        return await replayed(self.gateway, record, functools.partial(self.projection, record, began))

    async def base(self, asked: Asked) -> Base:
        """Return the newest run, and the run from which the new run continues. Nothing is changed.

        Raises ThreadBusy; raises Invalid if the run or checkpoint that the client named does not exist.
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
        """Return the run that this POST has already started with its Idempotency-Key, or None.

        Raises KeyReused if another POST has used the key.
        """
        known = await self.gateway.parts.conversations.look(_KEYS, self.owner, self._keyed(asked))
        if known.stream and known.state != asked.digest:
            raise KeyReused
        return await self.found(known.stream)

    async def remember(self, asked: Asked, record: Record) -> None:
        """Store that this idempotency key started this run."""
        name, conversations = self._keyed(asked), self.gateway.parts.conversations
        await conversations.turn(_KEYS, self.owner, name, Conversation(), record.id, asked.digest)

    def _keyed(self, asked: Asked) -> str:
        return f"{self.name}\0{asked.key}"

    async def messages(self, run_id: str, undone: Collection[str] = ()) -> list[dict[str, Any]]:
        """Return the thread's messages after the run `run_id`: a next run continues from them.

        If the messages come from the thread's memory, they are without the messages of the `undone` runs.
        """
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
        """Return the metadata that the client has sent for the thread, and the graph of the newest run."""
        ran = {"graph_id": state.chain, "assistant_id": assistant_id(state.chain)} if state.chain else {}
        return {**state.metadata, **ran}

    async def status(self, state: State) -> str:
        """Return `busy`, `interrupted`, `error` or `idle`.

        `interrupted`: a question is open, or the newest run was cancelled.
        """
        status = await self.gateway.parts.turns.status(self.owner, state)
        if status != "idle":
            return status
        newest = await self.found(state.newest)
        return "interrupted" if newest is not None and newest.status is Status.CANCELLED else status

    async def describe(self, metadata: Mapping[str, Any]) -> None:
        """Store the thread's metadata.

        Raises Invalid; raises OverQuota if the caller has too many threads.
        """
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
        """Return the graph's state from the thread's newest checkpoint; None if there is no checkpoint."""
        gateway = self.gateway
        if not await gateway.parts.threads.has_checkpoints(self.owner, self.name):
            return None
        return await gateway.state_of(gateway.parts.redis, self.owner, self.name, gateway.room)

    async def graphs(self, **wanted: Any) -> Sequence[GraphState]:
        """Return checkpoints of the thread's graph.

        `wanted` has the fields of `StateWanted`, which select them.
        """
        gateway = self.gateway
        if not await gateway.parts.threads.has_checkpoints(self.owner, self.name):
            return []
        redis, room = gateway.parts.redis, gateway.room
        return await gateway.states_of(redis, self.owner, self.name, room, StateWanted(**wanted))

    async def values(self, record: Record, began: Began) -> dict[str, Any]:
        """Return the state after a run: the graph's newest checkpoint if there is one, else the run's own."""
        if (graph := await self.graph()) is not None and isinstance(graph.values, dict):
            return Document.of({"messages": [], **graph.values}, graph.share, graph.size)
        values = (await self.state(record, began)).values()
        known = values if isinstance(values, dict) else {}
        return {name: value for name, value in known.items() if name != "__interrupt__"}

    async def remembered(self, undone: Collection[str] = ()) -> list[dict[str, Any]]:
        """Return the messages in the thread's memory, without those of `undone` runs, in LangChain's form."""
        memory = await self.gateway.parts.threads.memory(self.owner, self.name, *undone)
        return [_written(one, f"{self.name}:{number}") for number, one in enumerate(memory)]

    async def keep(self, record: Record, began: Began) -> None:
        """Store how a run began."""
        await self.gateway.parts.conversations.keep(self.owner, record.id, RUN, began.kept())

    async def end(self) -> None:
        """Delete the thread and its runs, with all data that is stored for them. Raises ThreadBusy."""
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
        """Yield the thread's runs on all branches, the newest first; at most 100."""
        ids = await self.gateway.parts.threads.streams(self.owner, self.name)
        for run_id in ids[:MOST_WALKED]:
            if (record := await self.found(run_id)) is not None:
                yield record, await self.began(record)

    async def history(self, since: str = "") -> AsyncGenerator[tuple[Record, Began], None]:
        """Yield the newest run and the runs before it, the newest first; at most 100.

        With `since`, yield only the runs before the run `since`. Stop at a run that is no longer stored.
        """
        run_id = since or (await self.stands()).newest
        for number in range(MOST_WALKED):
            if (record := await self.found(run_id)) is None:
                return
            began = await self.began(record)
            if number or not since:
                yield record, began
            run_id = began.before


def name_of(gateway: Gateway, request: Request) -> str:
    """Return the name of the path's thread. Raises Invalid or NoOwner."""
    request_head.check_apart(gateway)
    name: str = request.path_params["thread"]
    check_thread("thread_id", name)
    return name


def _written(one: Mapping[str, Any], message_id: str) -> dict[str, Any]:
    """Convert a message from this gateway's form to LangChain's form."""
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
    """Return a parameter that must be a whole number, limited to `most`. Raises Invalid."""
    if not re.fullmatch(r"[0-9]{1,4}", str(given), re.ASCII):
        raise Invalid(field, "must be a whole number")
    return min(int(given), most)


def refused(error: HoldfastError) -> Response:
    """Return an error in the form of LangGraph's server, with this gateway's error code."""
    kept = ("retry-after", "www-authenticate")
    headers = {name: value for name, value in problem(error).headers.items() if name in kept}
    return json_answer({"detail": error.detail, "code": error.code}, error.status, headers)
