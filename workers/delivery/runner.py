"""One delivery: claim the job, run an attempt and its writer, settle.

A delivery is settled when the job has ended. A delivery whose job has not ended is delivered again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import SpanKind

from gateway import protocol
from gateway.observe import telemetry
from gateway.protocol.errors import QueueUnavailable, StoreUnavailable
from gateway.queue import overdue
from gateway.queue.job_queue import Message, Sender
from gateway.queue.turns import Turns
from gateway.runtime.tasks import begin
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.record import Answer, Claim, Record
from gateway.store.threads import lifetimes
from gateway.writing.writer import Writer
from workers.attempt import failures
from workers.attempt.attempt import Attempt, refused
from workers.chains.registry import Registry
from workers.checkpoints.savers import Savers
from workers.delivery.keeper import Keeper
from workers.delivery.report import Outcome, running

_log = logging.getLogger("holdfast.runner")


@dataclass(frozen=True, slots=True)
class Settled:
    """What to do with the delivery: nothing more, or deliver it again after a delay in milliseconds."""

    again_in_ms: int | None = None


# A job whose version or chain this worker lacks: how long it waits for another worker, how often it is tried.
FOREIGN_MS, FOREIGN_AGAIN_MS = 600_000, 5_000
# By chance: workers look at the queue in a fixed rhythm, and the same one would get it again each time.
UNKNOWN_AGAIN_MS = (500, 3_000)
GIVEN_UP_AGAIN_MS = 30_000
STOP_SECONDS = 5.0
DONE = Settled()
AGAIN = Settled(again_in_ms=0)
# The claim is over, the job is not: the delivery comes again. `lost`: the store has lost the end of the log,
# and the next attempt matches what the log still has. `fenced`: another worker has claimed the job, maybe by
# this very delivery. So this worker must not settle it.
NOT_ENDED = ("lost", "fenced")


class Runner:
    """Runs jobs. Cancelling one lets it go, and answers that it is to be delivered again."""

    def __init__(self, settings: Settings, log: Log, registry: Registry, queue: Sender | None = None) -> None:
        """`queue` gets the jobs whose streams have the turn of their threads next; None: there are none."""
        self._settings = settings
        self._turns = None if queue is None else Turns(log, queue)
        self._log = log
        self._registry = registry
        self._keeper = Keeper(settings)
        self._savers = Savers(log, settings)
        self.replaced = False  # by another of the same process: what it lets go has lost no attempt

    async def run(self, body: bytes) -> Settled:
        """Handle one message. Raises StoreUnavailable when nothing could be decided: leave it pending."""
        message = _decode(body)
        if message is None:
            return DONE
        claiming = begin(self._claim(message), name=f"claim-{message.id}")
        try:
            answer = await asyncio.shield(claiming)
        except asyncio.CancelledError:  # this process stops, perhaps with a claim on its way
            answer = await claiming
            return _unclaimed(answer) if answer.claim is None else await self._let_go(answer.claim, 0)
        if answer.claim is None:
            return _unclaimed(answer)
        known = message.version == answer.claim.record.version == protocol.VERSION
        if known and self._waits_for_its_chain(answer.claim):
            return await self._let_go(answer.claim, round(random.uniform(*UNKNOWN_AGAIN_MS)))
        if known and not await self._has_turn(answer.claim.record):
            await self._let_go(answer.claim, 0)
            return DONE  # who ends the stream before it sends another message
        return await self._attempt(answer.claim, known)

    async def give_up(self, body: bytes) -> Settled:
        """Handle a message that the queue has given up: a sick job ends, any other is delivered again later.

        Raises StoreUnavailable.
        """
        message = _decode(body)
        if message is None:
            return DONE
        answer = await self._claim(message)
        if answer.claim is None:
            return _unclaimed(answer)
        known = answer.claim.record.version == protocol.VERSION
        waits = known and self._waits_for_its_chain(answer.claim)
        if waits or refused(answer.claim, self._settings, self._registry) is None:
            return await self._let_go(answer.claim, GIVEN_UP_AGAIN_MS)
        return await self._attempt(answer.claim, known)

    async def _has_turn(self, record: Record) -> bool:
        """Whether the stream's thread lets it run now. Raises StoreUnavailable."""
        if self._turns is None:
            return True
        try:
            return await self._turns.has_turn(record, *lifetimes(self._settings))
        except QueueUnavailable as error:  # the thread could not be handed on to another
            raise StoreUnavailable from error

    async def _left(self, record: Record) -> None:
        """The stream is over: the next one of its thread has the turn."""
        if self._turns is None:
            return
        try:
            await self._turns.left(record)
        except (StoreUnavailable, QueueUnavailable) as error:  # the sweeper does it
            _log.warning("the thread of stream %s is handed on later: %s", record.id, error.code)

    def _waits_for_its_chain(self, claim: Claim) -> bool:
        """Whether this process lacks the job's chain, and a worker of another release may have it."""
        record = claim.record
        if self._registry.find(record.chain) is not None:
            return False
        if not record.unknown_ms:
            _log.warning("stream %s waits for a worker that has the chain %s", record.id, record.chain)
        return claim.now_ms - (record.unknown_ms or claim.now_ms) < FOREIGN_MS

    async def _claim(self, message: Message) -> Answer:
        """Claim the job; a stream whose time is over ends here instead. Raises StoreUnavailable."""
        answer = await self._log.claim(
            message.id,
            protocol.new_token(),
            round(self._settings.lease * 1000),
            version=message.version,
            foreign_ms=FOREIGN_MS,
            run_ms=round(self._settings.max_run * 1000),
        )
        if answer.word == "over":
            await overdue.end(self._log, message.id, answer.code)
        return answer

    async def _let_go(self, claim: Claim, again_ms: int) -> Settled:
        """Release a job that was only looked at, and have it delivered again."""
        lease_ms = round(self._settings.lease * 1000)
        fields = {"attempt": claim.record.attempt - 1}  # looking at it was no attempt
        if self._registry.find(claim.record.chain) is None:
            fields["unknown_ms"] = claim.record.unknown_ms or claim.now_ms
        await self._log.append(
            claim,
            claim.log_end,
            b"",
            claim.record.last_id,
            lease_ms,
            status=protocol.Status.QUEUED,
            fields=fields,
        )
        return Settled(again_in_ms=again_ms)

    async def _attempt(self, claim: Claim, known: bool) -> Settled:
        record = claim.record
        if record.attempt == 1:
            telemetry.queue_wait.record((claim.now_ms - record.created_ms) / 1000)
        else:
            telemetry.takeovers.add(1)
        with (
            running(),
            telemetry.span(
                f"process {self._settings.queue_name}",
                SpanKind.CONSUMER,
                parent=record.trace,
                link=record.attempt_trace,
                holdfast_stream_id=record.id,
                holdfast_chain=record.chain,
                holdfast_attempt=record.attempt,
            ) as span,
            self._keeper.holding(claim),
        ):
            settled = await self._run(claim, known, telemetry.traceparent_of(span))
        if settled == DONE:
            await self._left(record)
        return settled

    async def _run(self, claim: Claim, known: bool, trace: str) -> Settled:
        settings = self._settings
        writer = Writer(
            self._log,
            claim,
            lease=settings.lease,
            patience=settings.store_patience,
            max_event=settings.max_event,
            max_log=settings.max_log,
        )
        writer.note(attempt_trace=trace)
        if claim.record.unknown_ms and self._registry.find(claim.record.chain) is not None:
            writer.note(unknown_ms=0)  # a worker that lacks the chain, and gets the job later, waits anew
        attempt = self._made(claim, writer)
        told = Outcome(claim, writer)
        writing = begin(writer.run(), name=f"write-{claim.record.id}")
        chain = begin(attempt.run(known=known), name=f"chain-{claim.record.id}")
        try:
            left = self._left_seconds(claim)
            await asyncio.wait({writing, chain}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not chain.done():
                if not writing.done():  # the run's time is over; whatever the chain says now is not heard
                    await writer.put(overdue.TIME_LIMIT)
                await _stop(chain)  # this claim is over: stop the model call
            elif _ended_itself(chain):
                _log.error("stream %s: chain %s cancelled itself", claim.record.id, claim.record.chain)
                await writer.put(failures.failure(asyncio.CancelledError()))
            else:
                chain.result()  # StoreUnavailable: leave the delivery pending
            await asyncio.wait({writing})  # unlike `await writing`: a cancel here does not cancel the writer
            word = writing.result()
            handed_over = word == "ok" and writer.released  # at a stage's end, its time being up
            told.tell("handed over" if handed_over else word)
            return AGAIN if handed_over or word in NOT_ENDED else DONE
        except asyncio.CancelledError:
            return await self._hand_over(claim, told, writer, writing, chain)
        except StoreUnavailable:
            told.tell("store")
            raise
        finally:
            await _stop(chain)
            await _stop(writing)

    def _made(self, claim: Claim, writer: Writer) -> Attempt:
        """The attempt of a claim."""
        return Attempt(claim, writer, self._log, self._registry, self._settings, self._savers)

    def _left_seconds(self, claim: Claim) -> float:
        """Of the time that a stream may run, by Redis's clock."""
        ran_ms = claim.now_ms - (claim.record.started_ms or claim.now_ms)
        return max(0.0, self._settings.max_run - ran_ms / 1000)

    async def _hand_over(
        self,
        claim: Claim,
        told: Outcome,
        writer: Writer,
        writing: asyncio.Task[str],
        chain: asyncio.Task[None],
    ) -> Settled:
        """This process, or this runner of it, stops: release, then have the job delivered again.

        Raises StoreUnavailable when the store does not take the release in time: leave it pending.
        """
        await _stop(chain)
        if self.replaced:
            writer.note(handovers=claim.record.handovers + 1)
        writer.release()
        try:
            async with asyncio.timeout(self._settings.drain):
                word = await writing
        except (TimeoutError, StoreUnavailable) as error:
            told.tell("store")
            raise StoreUnavailable from error
        told.tell("handed over" if word == "ok" and writer.final is None else word)
        return AGAIN if word in ("ok", *NOT_ENDED) else DONE


def _decode(body: bytes) -> Message | None:
    """The message, or None for one that nobody could ever run."""
    try:
        message = Message.decode(body)
    except ValueError:
        _log.error("a message that is not a job was dropped (%d bytes)", len(body))
        return None
    if not protocol.is_stream_id(message.id):
        _log.error("a job without a stream id was dropped")
        return None
    return message


def _unclaimed(answer: Answer) -> Settled:
    """Somebody holds it, or another release knows it; else it has ended, is over, or has expired."""
    again_ms = {"held": answer.number, "foreign": FOREIGN_AGAIN_MS}
    return Settled(again_in_ms=again_ms.get(answer.word))


def _ended_itself(chain: asyncio.Task[None]) -> bool:
    """Whether a chain's task has ended by the chain's own cancellation: nobody here has asked for it."""
    return chain.cancelled() or isinstance(chain.exception(), GeneratorExit)


async def _stop(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has stopped; its own error has been told already.

    One that swallows the cancellation is left behind after 5 s: it may not keep this place.
    """
    task.cancel()
    _, running = await asyncio.wait({task}, timeout=STOP_SECONDS)
    if running:
        _log.error("%s does not let itself be cancelled", task.get_name())
    elif not task.cancelled():
        task.exception()
