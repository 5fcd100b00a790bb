"""Handle one delivery: claim the job, run an attempt and its writer, and settle the delivery.

A delivery is settled when its job has ended. If the job has not ended, it is delivered again.
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
    """What to do with a delivery: nothing more, or deliver the job again after a delay in milliseconds."""

    again_in_ms: int | None = None


# For a job whose version or chain this worker does not know: the time in milliseconds for which it waits for
# another worker, and the time between two deliveries.
FOREIGN_MS, FOREIGN_AGAIN_MS = 600_000, 5_000
# A random delay between these milliseconds. Workers poll the queue at fixed intervals, so with a fixed delay
# the same worker would receive the job each time.
UNKNOWN_AGAIN_MS = (500, 3_000)
GIVEN_UP_AGAIN_MS = 30_000
STOP_SECONDS = 5.0
DONE = Settled()
AGAIN = Settled(again_in_ms=0)
# The answers of the store after which the claim is over but the job is not: the message is delivered again.
# `lost`: the store has lost the end of the log. The next attempt continues from what the log still has.
# `fenced`: another worker has claimed the job, maybe because of this same delivery. So this worker must not
# settle it.
NOT_ENDED = ("lost", "fenced")


class Runner:
    """Runs jobs.

    When `run` is cancelled, it releases its job and returns that the job must be delivered again.
    """

    def __init__(self, settings: Settings, log: Log, registry: Registry, queue: Sender | None = None) -> None:
        """`queue` receives the streams whose turn in their thread comes next.

        None: this process sends none.
        """
        self._settings = settings
        self._turns = None if queue is None else Turns(log, queue)
        self._log = log
        self._registry = registry
        self._keeper = Keeper(settings)
        self._savers = Savers(log, settings)
        # True: another runner of this process replaces this one, so a handover does not count as an attempt
        self.replaced = False

    async def run(self, body: bytes) -> Settled:
        """Handle one message.

        Raises StoreUnavailable when nothing could be decided; leave the message pending then.
        """
        message = _decode(body)
        if message is None:
            return DONE
        claiming = begin(self._claim(message), name=f"claim-{message.id}")
        try:
            answer = await asyncio.shield(claiming)
        except asyncio.CancelledError:  # this process stops, perhaps during a claim
            answer = await claiming
            return _unclaimed(answer) if answer.claim is None else await self._let_go(answer.claim, 0)
        if answer.claim is None:
            return _unclaimed(answer)
        known = message.version == answer.claim.record.version == protocol.VERSION
        if known and self._waits_for_its_chain(answer.claim):
            return await self._let_go(answer.claim, round(random.uniform(*UNKNOWN_AGAIN_MS)))
        if known and not await self._has_turn(answer.claim.record):
            await self._let_go(answer.claim, 0)
            return DONE  # the end of the stream before this one sends another message
        return await self._attempt(answer.claim, known)

    async def give_up(self, body: bytes) -> Settled:
        """Handle a message that the queue has given up.

        A job with too many failed attempts ends. Any other job is delivered again later. Raises
        StoreUnavailable.
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
        """Return whether this stream has the turn of its thread. Raises StoreUnavailable."""
        if self._turns is None:
            return True
        try:
            return await self._turns.has_turn(record, *lifetimes(self._settings))
        except QueueUnavailable as error:  # the turn could not be passed to another stream
            raise StoreUnavailable from error

    async def _left(self, record: Record) -> None:
        """Pass the turn of the thread to its next stream, because this stream has ended."""
        if self._turns is None:
            return
        try:
            await self._turns.left(record)
        except (StoreUnavailable, QueueUnavailable) as error:  # the sweeper does it later
            _log.warning("the thread of stream %s is handed on later: %s", record.id, error.code)

    def _waits_for_its_chain(self, claim: Claim) -> bool:
        """Return whether the job must wait for a worker of another release.

        This is so when this process lacks the job's chain and the waiting time FOREIGN_MS is not over.
        """
        record = claim.record
        if self._registry.find(record.chain) is not None:
            return False
        if not record.unknown_ms:
            _log.warning("stream %s waits for a worker that has the chain %s", record.id, record.chain)
        return claim.now_ms - (record.unknown_ms or claim.now_ms) < FOREIGN_MS

    async def _claim(self, message: Message) -> Answer:
        """Claim the job. A stream whose time limit has passed is ended instead. Raises StoreUnavailable."""
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
        """Release a job that did not run here, and have it delivered again."""
        lease_ms = round(self._settings.lease * 1000)
        # this claim ran nothing, so it does not count as an attempt
        fields = {"attempt": claim.record.attempt - 1}
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
            # the waiting time starts again at 0 if a worker without the chain gets the job later
            writer.note(unknown_ms=0)
        attempt = self._made(claim, writer)
        told = Outcome(claim, writer)
        writing = begin(writer.run(), name=f"write-{claim.record.id}")
        chain = begin(attempt.run(known=known), name=f"chain-{claim.record.id}")
        try:
            left = self._left_seconds(claim)
            await asyncio.wait({writing, chain}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not chain.done():
                # the time limit of the run has passed; later output of the chain is ignored
                if not writing.done():
                    await writer.put(overdue.TIME_LIMIT)
                await _stop(chain)  # this claim is over: cancel the call to the model
            elif _ended_itself(chain):
                _log.error("stream %s: chain %s cancelled itself", claim.record.id, claim.record.chain)
                await writer.put(failures.failure(asyncio.CancelledError()))
            else:
                chain.result()  # may raise StoreUnavailable: the delivery stays pending
            await asyncio.wait({writing})  # unlike `await writing`: a cancel here does not cancel the writer
            word = writing.result()
            # released at the end of a stage, because the time of this worker was over
            handed_over = word == "ok" and writer.released
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
        """Create the attempt for a claim."""
        return Attempt(claim, writer, self._log, self._registry, self._settings, self._savers)

    def _left_seconds(self, claim: Claim) -> float:
        """Return how many seconds the stream may still run, by Redis's clock."""
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
        """Release the job and have it delivered again, because this process, or this runner of it, stops.

        Raises StoreUnavailable when the store does not accept the release in time. The message stays pending
        then.
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
    """Return the message, or None for a message that no worker could ever run."""
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
    """Return when to deliver a job again that this worker could not claim.

    The job is delivered again if another worker holds it, or if only another release can run it. Otherwise
    the stream has ended, its time limit has passed, or it has expired, so the delivery is settled.
    """
    again_ms = {"held": answer.number, "foreign": FOREIGN_AGAIN_MS}
    return Settled(again_in_ms=again_ms.get(answer.word))


def _ended_itself(chain: asyncio.Task[None]) -> bool:
    """Return whether the chain's task was cancelled by the chain itself, not by this process."""
    return chain.cancelled() or isinstance(chain.exception(), GeneratorExit)


async def _stop(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has stopped. Its own error was already reported.

    A task that ignores the cancellation is abandoned after 5 s, so that it does not block this place.
    """
    task.cancel()
    _, running = await asyncio.wait({task}, timeout=STOP_SECONDS)
    if running:
        _log.error("%s does not let itself be cancelled", task.get_name())
    elif not task.cancelled():
        task.exception()
