"""A task and its legs: found, told as it stands, begun, and gone on with by an answer.

A task's id is that of its first stream. A stream that asks has ended; its answer makes another one, and the
task goes on there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from gateway import protocol
from gateway.formats.a2a.projection import CANCELED, TaskEvents
from gateway.formats.a2a.request import Sent
from gateway.formats.base.projection import Place, Projection
from gateway.formats.base.serving import begin, stands
from gateway.formats.base.shared_frames import standing
from gateway.protocol.errors import HoldfastError, Invalid, NotWaiting, StreamGone, StreamNotFound
from gateway.store.conversations import Conversation
from gateway.store.record import Record
from gateway.streams.room import Document
from gateway.streams.service import Gateway
from gateway.streams.start import Start
from gateway.web import request_head

ANSWER = "a2a answer"  # kind of conversation: which leg a message has answered
MOST_LEGS = 100
_TRIES = 10


class TaskOver(HoldfastError):
    """The task does not take this any more."""

    status = 409
    code = "task_over"


class NotCancelable(HoldfastError):
    """The task has ended."""

    status = 409
    code = "task_not_cancelable"


@dataclass(frozen=True, slots=True)
class Task:
    """Its legs, the oldest first."""

    gateway: Gateway
    legs: list[Record]

    @property
    def id(self) -> str:
        """Of the task."""
        return self.legs[0].first or self.legs[0].id

    @property
    def newest(self) -> Record:
        """The leg in which it stands."""
        return self.legs[-1]

    @property
    def context(self) -> str:
        """A stream of another format may have none: then it is the task's own."""
        return self.newest.thread or self.id

    @property
    def is_over(self) -> bool:
        """Whether nothing comes any more."""
        return self.newest.ended and self.newest.state != "waiting"

    def events(self, leg: Record) -> TaskEvents:
        """A projection of this leg."""
        return TaskEvents(task=self.id, context=self.context, leg=leg.id)

    async def told(self) -> tuple[Document, Place]:
        """The task as it stands, and where its newest leg does.

        Raises StreamGone, StoreUnavailable or TooManyReaders.
        """
        before: list[Any] = []
        for leg in self.legs[:-1]:
            before += (await self._read(leg))[0]["artifacts"]
        share = await self.gateway.room_for(self.newest)
        told, place = await self._read(self.newest)
        return Document.of(self.document(told, before), share), place

    def document(self, told: Mapping[str, Any], before: list[Any]) -> dict[str, Any]:
        """The task's object. `before`: artifacts of earlier legs."""
        status = dict(told["status"])
        if self.newest.dropped:
            status = {"state": CANCELED}
        if self.newest.ended_ms:
            status["timestamp"] = protocol.iso(self.newest.ended_ms)
        artifacts = [*before, *told["artifacts"]]
        known = {"id": self.id, "contextId": self.context, "status": status}
        return known | ({"artifacts": artifacts} if artifacts else {})

    async def artifacts_before(self) -> list[Any]:
        """Those of earlier legs."""
        return [one for leg in self.legs[:-1] for one in (await self._read(leg))[0]["artifacts"]]

    async def place(self, given: str) -> Place | None:
        """Where a reader of the newest leg stands, by its `Last-Event-ID`; None: elsewhere, or nowhere.

        Raises Invalid for what is no such id.
        """
        leg, _, text = given.partition(".")
        try:
            place = Place.parse(text)
        except ValueError:
            raise Invalid("Last-Event-ID", "must be the id of an event of this task") from None
        if leg != self.newest.id or not await stands(self.gateway, self.newest, place):
            return None
        return place

    async def _read(self, leg: Record) -> tuple[dict[str, Any], Place]:
        def tell(shared: Projection) -> dict[str, Any]:
            assert isinstance(shared, TaskEvents)
            return {"status": shared.status, "artifacts": shared.artifacts()}

        return await standing(self.gateway, leg, self.events(leg), tell)


async def task_of(gateway: Gateway, task_id: str, owner: str, chain: str) -> Task:
    """A task of this caller and this chain, with the legs that are kept. Raises StreamNotFound or StreamGone.

    A leg's own id is none of a task.
    """
    record = await gateway.find(task_id, owner)
    if record.chain != chain or record.first not in ("", task_id):
        raise StreamNotFound
    legs = [record]
    while legs[-1].resumed_by and len(legs) < MOST_LEGS:
        legs.append(await gateway.find(legs[-1].resumed_by, owner))
    request_head.note(legs[-1])
    return Task(gateway, legs)


async def sent(
    gateway: Gateway,
    request: Request,
    start: Start | None,
    given: Sent,
    owner: str,
    chain: str,
    *,
    followed: bool,
) -> Task:
    """The task that a message begins, or goes on with; the same for the same message.

    `start` is what it begins, where it names no task. Raises what `begin` and `Gateway.resume` raise, and
    TaskOver.
    """
    if start is None:
        return await _answered(gateway, request, given, owner, chain, followed=followed)
    key = f"a2a {chain} {given.message_id}"
    record = await begin(gateway, request, start, owner, followed=followed, key=key)
    return await task_of(gateway, record.id, owner, chain)


async def _answered(
    gateway: Gateway, request: Request, given: Sent, owner: str, chain: str, *, followed: bool
) -> Task:
    task = await task_of(gateway, given.task, owner, chain)
    if given.context not in ("", task.context):
        raise Invalid("message.contextId", "must be the task's, or empty")
    asks = await _noted(gateway, task, given)
    waiting = next((leg for leg in task.legs if leg.id == asks), None)
    if waiting is None:
        raise TaskOver("the task waits for no answer: begin another one in its context")
    questions = waiting.questions
    if questions is None:  # it is answered: by this very message, perhaps
        questions = await _asked(task, waiting)
    try:
        record = await gateway.resume(
            waiting.id,
            given.answers(questions),
            owner=owner,
            traceparent=request_head.traceparent(request),
            followed=followed,
            claims=request_head.claims(request),
        )
    except NotWaiting:
        raise TaskOver("the task waits for no answer any more") from None
    again = await task_of(gateway, given.task, owner, chain)
    # What is told is the leg that this message has made, also where the task is further by now.
    return Task(gateway, again.legs[: 1 + [leg.id for leg in again.legs].index(record.id)])


async def _noted(gateway: Gateway, task: Task, given: Sent) -> str:
    """Which leg this message answers: the one that waited when it came first. Empty: none."""
    conversations = gateway.parts.conversations
    owner, name = task.newest.owner, f"{task.id}\0{given.message_id}"
    for _ in range(_TRIES):
        known = await conversations.look(ANSWER, owner, name)
        if known.stream:
            return known.stream
        if task.newest.state != "waiting":
            return ""
        if await conversations.turn(ANSWER, owner, name, Conversation(), task.newest.id):
            return task.newest.id
    return ""


async def _asked(task: Task, leg: Record) -> list[dict[str, Any]]:
    """The questions of a leg that is answered, by their ids alone: its last status has them."""
    told, _ = await task._read(leg)
    message = told["status"].get("message", {})
    found = [part.get("metadata", {}).get("interrupt") for part in message.get("parts", ())]
    questions = [one for one in found if one]
    if not questions:
        raise StreamGone
    return questions
