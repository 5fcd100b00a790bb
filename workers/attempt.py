"""One attempt at a job: run the chain, write its events, one terminal event, whatever the chain does.

An attempt that goes on where another fell reads the log first and repeats nothing that already stands.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from time import monotonic

from gateway import protocol, sse, telemetry
from gateway.errors import stack_of
from gateway.log import Log
from gateway.protocol import Event, EventType
from gateway.record import Claim
from gateway.settings import Settings
from workers import adapter, failures
from workers.chains.registry import Chain, Registry
from workers.matcher import Matcher, Published
from workers.writer import TooLong, Writer


class TooMuch(Exception):
    """The chain has said more than it may."""


_log = logging.getLogger("holdfast.attempt")


def refused(claim: Claim, settings: Settings, registry: Registry) -> Event | None:
    """Why this job is not run, if it is not: its chain is gone, or its attempts are spent."""
    record = claim.record
    if registry.find(record.chain) is None:
        return failures.UNKNOWN_CHAIN
    if record.failures >= settings.max_failures or record.attempt > settings.max_attempts:
        return failures.ATTEMPTS_EXHAUSTED
    return None


class Attempt:
    """What a claim runs; `run` ends with a terminal event handed to the writer.

    Cancelling it ends the model's call.
    """

    def __init__(
        self, claim: Claim, writer: Writer, log: Log, registry: Registry, settings: Settings
    ) -> None:
        self._claim = claim
        self._writer = writer
        self._log = log
        self._registry = registry
        self._settings = settings
        self._began = monotonic()
        self._pieces = 0

    async def run(self, *, known: bool) -> None:
        """Everything up to the terminal event. `known`: this release understands the job.

        Raises StoreUnavailable.
        """
        claim, writer = self._claim, self._writer
        if claim.log_end == 0:  # it waited past its retention, or the store has lost the log whole
            await writer.put(self._start())
        why = refused(claim, self._settings, self._registry) if known else failures.UNSUPPORTED_VERSION
        if why is not None:
            await writer.put(why)
            return
        chain = self._registry.find(claim.record.chain)
        assert chain is not None
        published = await self._published()  # its errors are the store's, not the chain's
        try:
            await self._stage(chain, published)
        except TooLong:
            await writer.put(failures.TOO_LONG)
        except TooMuch:
            await writer.put(failures.OUTPUT_LIMIT)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # whatever it is, it ends the stream, not this task
            _log.error("stream %s: chain %s failed\n%s", claim.record.id, chain.name, stack_of(error))
            await writer.put(failures.failure(error))

    async def _stage(self, chain: Chain, published: Published) -> None:
        record, writer = self._claim.record, self._writer
        stage, index, count = chain.stages[0], 0, 1
        if published.stage != stage:
            await writer.put(protocol.stage(stage, run=1, index=index, count=count))
        matcher, outcome = Matcher(published, record.attempt), adapter.Outcome()
        runnable = await self._registry.load(chain.name)
        with telemetry.span(f"stage {stage}", holdfast_stage=stage):
            made = adapter.events(
                runnable,
                record.input,
                record.params,
                deployment=self._settings.model,
                stage=stage,
                outcome=outcome,
            )
            began, first = monotonic(), not published.events
            async with aclosing(made) as events:  # whatever ends this, the model call ends with it
                async for event in events:
                    self._count(event)
                    if fresh := matcher.take(event):
                        await self._put(fresh)
                        if first:
                            telemetry.first_token.record(self._age_seconds())
                            first = False
                    else:
                        writer.progressed()
            if "output_tokens" in outcome.usage:
                telemetry.token_rate.record(outcome.usage["output_tokens"] / max(monotonic() - began, 1e-6))
        done = protocol.done(
            finish_reason=outcome.finish_reason,
            usage=outcome.usage,
            attempts=record.attempt,
            duration_ms=self._duration_ms(),
        )
        finished = protocol.stage(stage, run=1, index=index, count=count, finished=True)
        await self._put([*matcher.end(), finished, done])

    async def _put(self, events: list[Event]) -> None:
        if events[0].type is EventType.RESET:
            telemetry.resets.add(1)
        await self._writer.put(*events)

    def _count(self, event: Event) -> None:
        """Pieces of text stand for tokens, which a stream tells at its end only. Raises TooMuch."""
        self._pieces += event.type is EventType.MESSAGE
        if self._pieces > self._settings.max_output_tokens:
            raise TooMuch

    def _start(self) -> Event:
        record = self._claim.record
        return protocol.start(record.id, record.chain, record.stages, protocol.iso(record.created_ms))

    def _age_seconds(self) -> float:
        """Since the stream was made: by Redis's clock up to the claim, then by our own."""
        claim = self._claim
        return (claim.now_ms - claim.record.created_ms) / 1000 + monotonic() - self._began

    def _duration_ms(self) -> int:
        """Since the first attempt began."""
        claim = self._claim
        before_ms = claim.now_ms - (claim.record.started_ms or claim.now_ms)
        return before_ms + round((monotonic() - self._began) * 1000)

    async def _published(self) -> Published:
        """What earlier attempts have written; the first has nothing to read but `start`."""
        if self._claim.record.attempt == 1:
            return Published()
        messages, after, at_end = [], None, False
        while not at_end:
            piece = await self._log.read(self._claim.record.id, after)
            messages += sse.Decoder().feed(piece.frames)
            after, at_end = piece.last, piece.at_end
        return Published.read(messages)
