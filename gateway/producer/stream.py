"""The stream that a producer writes: one stage after another, then the end.

    async with stream.write("outline") as out:
        if not out.finished:
            async for piece in llm:
                await out.text(piece)
    await stream.done()

Each block has its own writer. All blocks use the claim that the first block of the stream made.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic

from gateway import protocol
from gateway.client.events import StreamCancelled, StreamEnded, StreamTaken
from gateway.observe import loglines, telemetry
from gateway.producer import said
from gateway.producer.course import Course
from gateway.producer.hold import Hold, ended, patiently, refused
from gateway.producer.out import Writing
from gateway.protocol import TERMINAL_EVENTS, Event, Status
from gateway.protocol.errors import HoldfastError, StoreUnavailable
from gateway.store.record import Record
from gateway.streams.opening import Opening
from gateway.writing.matcher import Published
from gateway.writing.standing import standing

_log = logging.getLogger("holdfast.producer")


class ProducerStream:
    """One stream of a producer.

    The first `write`, `done` or `failed` takes it over from an earlier producer.
    """

    def __init__(self, opening: Opening, record: Record, *, interrupts: bool = True) -> None:
        self._opening = opening
        self._interrupts = interrupts
        self._token = protocol.new_token()
        self._claimed_at: float | None = None  # when the stream was first claimed, by `monotonic`
        self._begun: set[str] = set()  # stages that a block of this producer has begun
        self._is_held = False
        self.id = record.id
        self.chain = record.chain
        self.stages = tuple(record.stages)
        self.status = record.status.value  # the last status that this producer knows

    def write(self, stage: str = "") -> Writing:
        """Return a block in which one stage is written. The name may be left out if there is only one stage.

        Entering the block raises Refused for a stage that does not exist or may not begin now. It raises
        StreamTaken if another producer has taken the stream since this producer claimed it. It may also raise
        StreamCancelled, StreamEnded or Unreachable, and RuntimeError if another block is open.
        """
        if not stage and len(self.stages) > 1:
            raise ValueError("the stream has several stages: say which one is written")
        return Writing(self, stage or self.stages[0], interrupts=self._interrupts)

    async def done(self, *, finish_reason: str = "stop", usage: Mapping[str, int] | None = None) -> None:
        """End the stream with success.

        Do nothing if it had already ended so. Raises the same exceptions as entering a block.
        """

        async def event(hold: Hold) -> Event:
            course = await self.course(hold)
            said.may_end(course)
            attempts, age_ms = hold.claim.record.attempt, self._age_ms(hold)
            return said.done(finish_reason, usage or {}, attempts=attempts, duration_ms=age_ms)

        await self._end(Status.DONE, event)

    async def failed(self, code: str, message: str = "", *, retryable: bool = False) -> None:
        """End the stream without a result. Do nothing if it had already failed.

        Raises the same exceptions as entering a block. `code` is a word of lower-case letters, digits and
        `_`. `message` is for readers.
        """

        async def event(hold: Hold) -> Event:
            return said.failed(code, message, retryable)

        await self._end(Status.FAILED, event)

    async def hold(self) -> Hold:
        """Claim the stream and return the claim with a writer. Call `release` afterwards.

        Raises the same exceptions as entering a block.
        """
        if self._is_held:
            raise RuntimeError("a stage of this stream is being written")
        self._is_held = True
        try:
            opening, keep = self._opening, self._claimed_at is not None
            claim = await patiently(
                lambda: opening.take(self.id, self._token, keep=keep), opening.settings.store_patience
            )
            if claim == "held":
                raise StreamTaken
            if isinstance(claim, str):
                error = await ended(opening.log, self.id, opening.settings)
                if isinstance(error, StreamEnded | StreamCancelled):
                    self.status = error.status if isinstance(error, StreamEnded) else "cancelled"
                raise error
        except BaseException:
            self._is_held = False
            raise
        if self._claimed_at is None:
            before_ms = claim.now_ms - (claim.record.started_ms or claim.now_ms)
            self._claimed_at = monotonic() - before_ms / 1000
            if claim.record.attempt > 1:
                telemetry.takeovers.add(1)
        self.status = Status.RUNNING.value
        return Hold(opening.log, claim, opening.settings)

    async def release(self, hold: Hold) -> None:
        """Stop this writer."""
        self._is_held = False
        await hold.stop()

    async def course(self, hold: Hold, stage: str = "") -> Course:
        """Return the position of this producer.

        The log is read only if it may contain a stage that is not finished.
        """
        record, reason = hold.claim.record, "retried" if stage in self._begun else "attempt_differs"
        course, published = Course(record, Published(), reason=reason), Published()
        unfinished = {name for name in self._begun if not course.is_finished(name)}
        if not course.is_whole and (record.attempt > 1 or unfinished):
            try:
                published = await standing(self._opening.log, self.id, hold.writer)
            except StoreUnavailable as error:
                raise refused(error) from error
        if stage:
            self._begun.add(stage)
        return Course(record, published, reason=reason)

    async def _end(self, status: Status, event: Callable[[Hold], Awaitable[Event]]) -> None:
        try:
            hold = await self.hold()
        except StreamEnded as error:
            if error.status == status.value:
                return
            raise
        try:
            final = await event(hold)
            hold.check(final)
            await hold.end(final)
        except HoldfastError as error:
            raise refused(error) from None
        finally:
            await self.release(hold)
        self.status = status.value
        self._tell(hold, final)

    def _age_ms(self, hold: Hold) -> int:
        """Return the milliseconds since the first claim of the stream."""
        return round((monotonic() - (self._claimed_at or monotonic())) * 1000)

    def _tell(self, hold: Hold, final: Event) -> None:
        code = final.data.get("code", "")
        telemetry.ended.add(1, {"status": TERMINAL_EVENTS[final.type], "code": code})
        loglines.tell(
            _log,
            logging.INFO,
            "produced",
            stream=self.id,
            chain=self.chain,
            attempt=hold.claim.record.attempt,
            status=self.status,
            code=code,
            ms=self._age_ms(hold),
        )
