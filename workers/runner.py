"""One delivery: claim, run the chain, append, one terminal event.

A delivery is settled only when the job has ended, or when somebody else surely holds it. An attempt that
goes on where another fell reads the log first and repeats nothing that already stands.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass
from time import monotonic
from typing import Any

from gateway import protocol, sse
from gateway.errors import StoreUnavailable, stack_of
from gateway.log import Log
from gateway.protocol import Event
from gateway.queue import Message
from gateway.record import Claim
from gateway.settings import Settings
from workers import adapter, failures
from workers.chains.registry import Chain, Registry
from workers.matcher import Matcher, Published
from workers.writer import TooLong, Writer

_log = logging.getLogger("holdfast.runner")


@dataclass(frozen=True, slots=True)
class Settled:
    """What to do with the delivery: nothing more, or deliver it again after a delay in milliseconds."""

    again_in_ms: int | None = None


FOREIGN_MS, FOREIGN_AGAIN_MS = 600_000, 5_000  # how long, and how often, for a release that knows it
STOP_SECONDS = 5.0
DONE = Settled()
AGAIN = Settled(again_in_ms=0)
# The claim is over, the job is not. `lost`: the store has forgotten a tail, and the next attempt matches what
# still stands. `fenced`: another holds it, perhaps by this very delivery, which is not ours to settle.
NOT_ENDED = ("lost", "fenced")


class Runner:
    """Runs jobs. Cancelling one lets it go, and answers that it is to be delivered again."""

    def __init__(self, settings: Settings, log: Log, registry: Registry) -> None:
        self._settings = settings
        self._log = log
        self._registry = registry

    async def run(self, body: bytes) -> Settled:
        """Handle one message. Raises StoreUnavailable when nothing could be decided: leave it pending."""
        try:
            message = Message.decode(body)
        except ValueError:
            _log.error("a message that is not a job was dropped (%d bytes)", len(body))
            return DONE
        if not protocol.is_stream_id(message.id):
            _log.error("a job without a stream id was dropped")
            return DONE
        answer = await self._log.claim(message.id, protocol.new_token(), round(self._settings.lease * 1000))
        if answer.word == "held":
            return Settled(again_in_ms=answer.number)
        if answer.claim is None:
            return DONE  # ended, or its record has expired: nobody waits for it
        known = message.version == answer.claim.record.version == protocol.VERSION
        if not known and answer.claim.now_ms - answer.claim.record.created_ms < FOREIGN_MS:
            return await self._leave_to_another_release(answer.claim)
        return await self._attempt(answer.claim, known)

    async def _leave_to_another_release(self, claim: Claim) -> Settled:
        """Two releases are at work: let it go, and have it delivered until one comes that knows it."""
        lease_ms = round(self._settings.lease * 1000)
        await self._log.append(
            claim,
            claim.log_end,
            b"",
            claim.record.last_id,
            lease_ms,
            status=protocol.Status.QUEUED,
            fields={"attempt": claim.record.attempt - 1},  # looking at it was no attempt
        )
        return Settled(again_in_ms=FOREIGN_AGAIN_MS)

    async def _attempt(self, claim: Claim, known: bool) -> Settled:
        settings = self._settings
        writer = Writer(
            self._log,
            claim,
            lease=settings.lease,
            patience=settings.store_patience,
            max_event=settings.max_event,
            max_log=settings.max_log,
        )
        writing = asyncio.create_task(writer.run(), name=f"write-{claim.record.id}")
        chain = asyncio.create_task(self._chain(claim, writer, known), name=f"chain-{claim.record.id}")
        try:
            await asyncio.wait({writing, chain}, return_when=asyncio.FIRST_COMPLETED)
            if not chain.done():
                await _stop(chain)  # the claim is over: stop the model call
            elif chain.cancelled():  # by its own doing, as nobody here has asked for it
                _log.error("stream %s: chain %s cancelled itself", claim.record.id, claim.record.chain)
                await writer.put(failures.failure(asyncio.CancelledError()))
            else:
                chain.result()  # StoreUnavailable: leave the delivery pending
            await asyncio.wait({writing})  # unlike `await writing`, cancelling this leaves the pen alone
            return self._settle(claim, writing.result())
        except asyncio.CancelledError:
            return await self._hand_over(claim, writer, writing, chain)
        finally:
            await _stop(chain)
            await _stop(writing)

    def _settle(self, claim: Claim, word: str) -> Settled:
        _log.info("stream %s attempt %d: %s", claim.record.id, claim.record.attempt, word)
        return AGAIN if word in NOT_ENDED else DONE

    async def _hand_over(
        self, claim: Claim, writer: Writer, writing: asyncio.Task[str], chain: asyncio.Task[None]
    ) -> Settled:
        """This process stops: release, then have the job delivered again.

        Raises StoreUnavailable when the store does not take the release in time: leave it pending.
        """
        await _stop(chain)
        writer.release()
        try:
            async with asyncio.timeout(self._settings.drain):
                word = await writing
        except TimeoutError as error:
            raise StoreUnavailable from error
        _log.info("stream %s attempt %d: handed over", claim.record.id, claim.record.attempt)
        return AGAIN if word in ("ok", *NOT_ENDED) else DONE

    async def _chain(self, claim: Claim, writer: Writer, known: bool) -> None:
        """Everything up to the terminal event, whatever the chain does."""
        refused = self._refused(claim) if known else failures.UNSUPPORTED_VERSION
        if refused is not None:
            await writer.put(refused)
            return
        chain = self._registry.find(claim.record.chain)
        assert chain is not None
        published = await self._published(claim)  # its errors are the store's, not the chain's
        try:
            await self._stage(claim, chain, writer, published)
        except TooLong:
            await writer.put(failures.TOO_LONG)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # whatever it is, it ends the stream, not this task
            _log.error("stream %s: chain %s failed\n%s", claim.record.id, chain.name, stack_of(error))
            await writer.put(failures.failure(error))

    def _refused(self, claim: Claim) -> Event | None:
        record, settings = claim.record, self._settings
        if self._registry.find(record.chain) is None:
            return failures.UNKNOWN_CHAIN
        if record.failures >= settings.max_failures or record.attempt > settings.max_attempts:
            return failures.ATTEMPTS_EXHAUSTED
        return None

    async def _stage(self, claim: Claim, chain: Chain, writer: Writer, published: Published) -> None:
        record, began = claim.record, monotonic()
        stage, index, count = chain.stages[0], 0, 1
        if published.stage != stage:
            await writer.put(protocol.stage(stage, run=1, index=index, count=count))
        matcher, outcome = Matcher(published, record.attempt), adapter.Outcome()
        runnable = await self._registry.load(chain.name)
        made = adapter.events(
            runnable,
            record.input,
            record.params,
            deployment=self._settings.model,
            stage=stage,
            outcome=outcome,
        )
        async with aclosing(made) as events:  # whatever ends this, the model call ends with it
            async for event in events:
                if fresh := matcher.take(event):
                    await writer.put(*fresh)
                else:
                    writer.progressed()
        before_ms = claim.now_ms - (record.started_ms or claim.now_ms)
        done = protocol.done(
            finish_reason=outcome.finish_reason,
            usage=outcome.usage,
            attempts=record.attempt,
            duration_ms=before_ms + round((monotonic() - began) * 1000),
        )
        finished = protocol.stage(stage, run=1, index=index, count=count, finished=True)
        await writer.put(*matcher.end(), finished, done)

    async def _published(self, claim: Claim) -> Published:
        """What earlier attempts have written; the first has nothing to read but `start`."""
        if claim.record.attempt == 1:
            return Published()
        messages, after, at_end = [], None, False
        while not at_end:
            piece = await self._log.read(claim.record.id, after)
            messages += sse.Decoder().feed(piece.frames)
            after, at_end = piece.last, piece.at_end
        return Published.read(messages)


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
