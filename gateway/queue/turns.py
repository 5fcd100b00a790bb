"""One stream of a thread runs at a time: whose turn it is, and the hand-over to the next.

Invariant: a thread whose holder is over, or whose next stream has not been sent to the queue, is found again:
by the next start in it, by whoever ends a stream of it, and by the sweeper, which looks at every stream that
waits. Each step may be made twice, and by several processes at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from gateway import protocol
from gateway.observe import telemetry
from gateway.protocol import Status
from gateway.protocol.errors import QueueUnavailable, ThreadBusy, ThreadRefused, ThreadWaiting
from gateway.queue.job_queue import Message, Sender
from gateway.store.log import Log
from gateway.store.record import Record
from gateway.store.threads import Asked, State, Threads

MOST_STEPS = 1000  # of one call: more than streams can wait
_AT_ONCE = 32  # streams that are deleted side by side
_TRIES = 10  # that a deletion may lose to new streams
_log = logging.getLogger("holdfast.turns")


def threads_in(log: Log) -> Threads:
    """The threads in the Redis that the streams are in."""
    assert log.connection is not None
    return Threads(log.connection)


def is_waiting(record: Record | None) -> bool:
    """Whether it has asked a question that nobody has answered or taken back."""
    return record is not None and record.status is Status.DONE and record.questions is not None


def is_over(record: Record | None) -> bool:
    """Whether the holder of a turn needs it no more: it has ended without a question, or has expired."""
    return record is None or (record.ended and not is_waiting(record))


class Turns:
    """The turns of all threads. Raises StoreUnavailable or QueueUnavailable; a later look goes on there."""

    def __init__(self, log: Log, queue: Sender) -> None:
        self._log = log
        self._queue = queue
        self._threads = threads_in(log)

    async def tend(self, owner: str, name: str) -> State:
        """Bring the thread forward, as far as it goes: end the displaced, hand the turn on, send the next."""
        for _ in range(MOST_STEPS):
            state = await self._threads.look(owner, name)
            if state.leaving:
                for stream_id, traces in state.leaving.items():
                    await self._displace(owner, name, stream_id, traces)
            elif state.holder:
                record = await self._look(state.holder, owner)
                if record is not None and record.resumed_by:
                    await self._threads.hand(owner, name, state.holder, record.resumed_by)
                elif not is_over(record) or not state.waiting:
                    return state
                else:
                    await self._leave(owner, name, state.holder)
            elif state.waiting:
                await self._leave(owner, name, "")
            else:
                return state
        return state

    async def must_wait(self, stream_id: str, owner: str, thread: str) -> bool:
        """Whether this stream, which has not ended, stands in its thread and has not the turn."""
        return bool(thread) and stream_id in (await self.tend(owner, thread)).waiting

    async def has_turn(self, record: Record, thread_ms: int, record_ms: int) -> bool:
        """Whether this stream may run now. A thread that the store has lost begins anew with it.

        False also where the stream has left its thread since the caller has read `record`: it was ended.
        """
        if not record.thread:
            return True
        if await self.must_wait(record.id, record.owner, record.thread):
            return False
        with suppress(ThreadRefused):
            word = await self.enter(record, Asked("again"), thread_ms, record_ms)
            if word == "left" and not is_over(await self._look(record.id, record.owner)):
                # The store has lost the end of a stream, and not that the stream has left: it runs again.
                word = await self.enter(record, Asked("enqueue"), thread_ms, record_ms)
            return word == "turn"
        return False

    async def enter(self, record: Record, asked: Asked, thread_ms: int, record_ms: int) -> str:
        """Ask for the turn: `turn`, `waits`, `moved` or `left`. Raises ThreadBusy, which names who has it.

        Raises ThreadWaiting where that one has asked a question, unless the question lapses. After `waits`
        the caller has to tend the thread once the stream's record lasts.
        """
        state = await self._threads.look(record.owner, record.thread)
        holder = await self._look(state.holder, record.owner) if state.holder else None
        if state.holder and is_waiting(holder):
            if not asked.lapses:
                raise ThreadWaiting(state.holder)
            await self._cancel(state.holder)
            holder = await self._look(state.holder, record.owner)
        if state.holder and not asked.over and is_over(holder):
            asked = replace(asked, over=state.holder)
        word, other = await self._threads.enter(record, asked, thread_ms=thread_ms, record_ms=record_ms)
        if word == "busy":
            raise ThreadBusy(other)
        if word == "full":
            raise ThreadBusy(other, "as many streams of the thread wait as may")
        return word

    async def running(self, owner: str, state: State) -> str:
        """The stream that has the turn, or the first that waits for it; empty where the thread is free."""
        if state.holder and not is_over(await self._look(state.holder, owner)):
            return state.holder
        return state.waiting[0] if state.waiting else ""

    async def status(self, owner: str, state: State) -> str:
        """`interrupted` while a question is open, `busy` while a stream runs or waits; `idle`, or `error`."""
        if await self.asking(owner, state):
            return "interrupted"
        if await self.running(owner, state):
            return "busy"
        record = (await self._log.look(state.newest, owner)).record if state.newest else None
        return "error" if record is not None and record.status is Status.FAILED else "idle"

    async def asking(self, owner: str, state: State) -> str:
        """The stream whose question is open; empty where there is none."""
        return state.holder if state.holder and is_waiting(await self._look(state.holder, owner)) else ""

    async def left(self, record: Record) -> None:
        """A stream has ended: it leaves its thread, wherever it stood there, and the next has the turn.

        One that has asked a question keeps the turn until it is answered, or the question taken back. What a
        stream has kept for itself is deleted as soon as nothing needs it.
        """
        if record.resumes:
            await self._forget_own(record.id)
        if not record.thread:
            return
        now = await self._look(record.id, record.owner)
        if now is None or (is_over(now) and not now.resumed_by):
            await self._leave(record.owner, record.thread, record.id)
        await self.tend(record.owner, record.thread)

    async def end(self, owner: str, name: str) -> Mapping[str, tuple[int, int]]:
        """Delete a thread, after the streams that run or wait in it have ended; the ids of all its streams.

        With each, for how many ms its log and its record were counted to be kept; negative where they were
        not there. Raises ThreadBusy where new ones keep coming.
        """
        ended: dict[str, tuple[int, int]] = {}
        waited: dict[str, int] = {}
        for _ in range(_TRIES):
            state = await self._threads.look(owner, name)
            for stream_id in state.streams:
                waited[stream_id] = max(waited.get(stream_id, 0), await self._cancel(stream_id))
            streams = await self._threads.streams(owner, name)
            for first in range(0, len(streams), _AT_ONCE):
                erasing = (self._erase(owner, one, waited) for one in streams[first : first + _AT_ONCE])
                for stream_id, left in await asyncio.gather(*erasing):
                    ended.setdefault(stream_id, left)
            if await self._threads.end(owner, name, state):
                return ended
        raise ThreadBusy(state.newest)

    async def _forget_own(self, stream_id: str) -> None:
        """Delete the checkpoints that a stream shares with those which it resumes, when it has ended well.

        A failed stream may be tried again, and where one was, another of its line may be: these expire.
        """
        record, _ = await self._log.record(stream_id)
        if record is None or not is_over(record) or record.resumed_by:
            return
        if record.status is not Status.FAILED and not record.retries and not record.keyed:
            await self._threads.forget_own(record.owner, record.first)

    async def _displace(self, owner: str, name: str, stream_id: str, traces: bool) -> None:
        await self._cancel(stream_id)
        if traces:
            await self._threads.drop_run(owner, name, stream_id)
        await self._leave(owner, name, stream_id)

    async def _cancel(self, stream_id: str) -> int:
        """End it; of one that waited for an answer, for how many ms its log was kept until now, else 0."""
        answer = await self._log.cancel(stream_id, protocol.tag_of(protocol.new_token()))
        if answer.word == "cancelled":
            telemetry.ended.add(1, {"status": Status.CANCELLED, "code": ""})
            with suppress(QueueUnavailable):  # its place in the queue is free later, then
                await self._queue.forget(stream_id)
        return answer.number if answer.word == "dropped" else 0

    async def _erase(
        self, owner: str, stream_id: str, waited: Mapping[str, int]
    ) -> tuple[str, tuple[int, int]]:
        """Delete it; for how many ms its log and its record were counted to be kept."""
        longest = max(waited.get(stream_id, 0), await self._cancel(stream_id))
        left, record = await self._log.erase(stream_id)
        await self._threads.forget_own(owner, stream_id)
        longer = max(longest - left, 0) if left > 0 else 0
        return stream_id, (left + longer, record + longer)

    async def _leave(self, owner: str, name: str, stream_id: str) -> None:
        """Hand on what this stream has, and send the next one's job; one that is over is left to `tend`."""
        following = await self._threads.leave(owner, name, stream_id)
        if not following:
            return
        record = await self._look(following, owner)
        if record is not None and not record.ended:
            _log.info("stream %s has the turn of its thread", following)
            await self._queue.enqueue(Message(following, record.trace))

    async def _look(self, stream_id: str, owner: str) -> Record | None:
        return (await self._log.look(stream_id, owner)).record
