"""The turns of threads: one stream of a thread runs at a time, then the next stream gets the turn.

Invariant: a thread is checked again if its holder is over, or if its next stream was not sent to the queue.
The next start in the thread does this, and the process that ends a stream of the thread, and the sweeper,
which checks every stream that waits. Each step may be made twice, and by several processes at once.
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

MOST_STEPS = 1000  # most steps of one call, more than a thread can have waiting streams
_AT_ONCE = 32  # streams that are deleted concurrently
_TRIES = 10  # how often new streams may interrupt the deletion of a thread
_log = logging.getLogger("holdfast.turns")


def threads_in(log: Log) -> Threads:
    """Return the threads in the Redis that stores the streams."""
    assert log.connection is not None
    return Threads(log.connection)


def is_waiting(record: Record | None) -> bool:
    """Return whether the stream asked a question that is neither answered nor withdrawn."""
    return record is not None and record.status is Status.DONE and record.questions is not None


def is_over(record: Record | None) -> bool:
    """Return whether a holder no longer needs the turn.

    It has ended without an open question, or has expired.
    """
    return record is None or (record.ended and not is_waiting(record))


class Turns:
    """The turns of all threads.

    The methods raise StoreUnavailable or QueueUnavailable. After an error, the next check continues the work.
    """

    def __init__(self, log: Log, queue: Sender) -> None:
        self._log = log
        self._queue = queue
        self._threads = threads_in(log)

    async def tend(self, owner: str, name: str) -> State:
        """Do all steps that the thread can make now, and return its state.

        The steps: end displaced streams, pass the turn on, and enqueue the next stream.
        """
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
        """Return whether this stream, which has not ended, waits in its thread for the turn."""
        return bool(thread) and stream_id in (await self.tend(owner, thread)).waiting

    async def has_turn(self, record: Record, thread_ms: int, record_ms: int) -> bool:
        """Return whether this stream may run now. If the store lost the thread, this stream begins it again.

        Return False also if the stream was ended and left its thread after the caller read `record`.
        """
        if not record.thread:
            return True
        if await self.must_wait(record.id, record.owner, record.thread):
            return False
        with suppress(ThreadRefused):
            word = await self.enter(record, Asked("again"), thread_ms, record_ms)
            if word == "left" and not is_over(await self._look(record.id, record.owner)):
                # The store lost the end of the stream, but the thread still shows that the stream left. It
                # must run again.
                word = await self.enter(record, Asked("enqueue"), thread_ms, record_ms)
            return word == "turn"
        return False

    async def enter(self, record: Record, asked: Asked, thread_ms: int, record_ms: int) -> str:
        """Ask for the turn. Return `turn`, `waits`, `moved` or `left`.

        Raises ThreadBusy, which names the stream that has the turn. Raises ThreadWaiting if that stream has
        an open question, unless `asked.lapses` makes the question expire. After `waits` the caller must call
        `tend` once the record of the stream is permanent.
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
        """Return the stream that has the turn, or the first that waits.

        Return an empty text if the thread is free.
        """
        if state.holder and not is_over(await self._look(state.holder, owner)):
            return state.holder
        return state.waiting[0] if state.waiting else ""

    async def status(self, owner: str, state: State) -> str:
        """Return the status of a thread.

        `interrupted`: a question is open. `busy`: a stream runs or waits. Otherwise `error` if the newest
        stream failed, and `idle` if not.
        """
        if await self.asking(owner, state):
            return "interrupted"
        if await self.running(owner, state):
            return "busy"
        record = (await self._log.look(state.newest, owner)).record if state.newest else None
        return "error" if record is not None and record.status is Status.FAILED else "idle"

    async def asking(self, owner: str, state: State) -> str:
        """Return the stream that has an open question, or an empty text."""
        return state.holder if state.holder and is_waiting(await self._look(state.holder, owner)) else ""

    async def left(self, record: Record) -> None:
        """Remove a stream that has ended from its thread, and pass the turn on.

        A stream that has asked a question keeps the turn until the question is answered or withdrawn. The
        checkpoints in the own thread of a stream are deleted as soon as no stream needs them.
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
        """Delete a thread after its streams have ended. Return the ids of all its streams.

        Each id has two numbers: for how many milliseconds the log and the record were counted as kept. A
        number is negative if the log or record did not exist. Raises ThreadBusy if new streams keep coming.
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
        """Delete the checkpoints that an ended stream shares with the streams that it resumes.

        Keep them if the stream failed, because it may be retried. Also keep them if it is itself a retry,
        because another stream of the same series may still be retried. Then the checkpoints stay until they
        expire.
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
        """Cancel a stream.

        If it waited for an answer, return for how many milliseconds its log would have been kept; otherwise
        return 0.
        """
        answer = await self._log.cancel(stream_id, protocol.tag_of(protocol.new_token()))
        if answer.word == "cancelled":
            telemetry.ended.add(1, {"status": Status.CANCELLED, "code": ""})
            with suppress(QueueUnavailable):  # if the queue fails, the job's place becomes free later
                await self._queue.forget(stream_id)
        return answer.number if answer.word == "dropped" else 0

    async def _erase(
        self, owner: str, stream_id: str, waited: Mapping[str, int]
    ) -> tuple[str, tuple[int, int]]:
        """Delete a stream. Return its id, and for how many ms its log and record were counted as kept."""
        longest = max(waited.get(stream_id, 0), await self._cancel(stream_id))
        left, record = await self._log.erase(stream_id)
        await self._threads.forget_own(owner, stream_id)
        longer = max(longest - left, 0) if left > 0 else 0
        return stream_id, (left + longer, record + longer)

    async def _leave(self, owner: str, name: str, stream_id: str) -> None:
        """Pass the turn of this stream on, and enqueue the next stream.

        If the next stream is over, `tend` handles it.
        """
        following = await self._threads.leave(owner, name, stream_id)
        if not following:
            return
        record = await self._look(following, owner)
        if record is not None and not record.ended:
            _log.info("stream %s has the turn of its thread", following)
            await self._queue.enqueue(Message(following, record.trace))

    async def _look(self, stream_id: str, owner: str) -> Record | None:
        return (await self._log.look(stream_id, owner)).record
