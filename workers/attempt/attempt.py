"""Run one attempt at a job: run the chain, write its events, and always write one terminal event.

An attempt after a failed attempt first reads the log. It does not write again the events that are already in
the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from gateway import protocol
from gateway.protocol import Event, sse
from gateway.protocol.fold import Fold
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.record import Claim, Record, started
from gateway.store.threads import Threads
from gateway.writing.matcher import Published
from gateway.writing.standing import standing, whole_log
from gateway.writing.writer import TOO_LONG, TooLong, Writer
from workers import guard, langchain
from workers.attempt import failures
from workers.attempt.limits import Limits, OverTime
from workers.attempt.stage_run import StageRun, TooMuch, Unread
from workers.chains.explain import explained
from workers.chains.making import place_of
from workers.chains.registry import Chain, Registry
from workers.checkpoints.savers import Savers
from workers.spending import Spending
from workers.stages import Stages, Step
from workers.threads.said import Said, has_checkpoints

_log = logging.getLogger("holdfast.attempt")


def refused(claim: Claim, settings: Settings, registry: Registry) -> Event | None:
    """Return the terminal event if this job must not run: its chain is unknown, or it was tried too often."""
    record = claim.record
    if registry.find(record.chain) is None:
        return failures.UNKNOWN_CHAIN
    if record.failures >= settings.max_failures or _tries(record) > settings.max_attempts:
        return failures.ATTEMPTS_EXHAUSTED
    return None


def _tries(record: Record) -> int:
    """Return the number of claims, without those that ended by a handover at a finished stage."""
    return record.attempt - record.handovers


class Attempt:
    """One attempt, for one claim. `run` ends by giving a terminal event to the writer.

    Cancelling `run` also ends the call to the model.
    """

    def __init__(
        self,
        claim: Claim,
        writer: Writer,
        log: Log,
        registry: Registry,
        settings: Settings,
        savers: Savers | None = None,
    ) -> None:
        self._claim = claim
        self._writer = writer
        self._log = log
        self._registry = registry
        self._settings = settings
        self._savers = savers
        self._began = monotonic()
        self._failures = claim.record.failures  # failures since the last finished stage
        self._spending = Spending(claim.record)
        self.result: Any = None  # the result of the stage's run that finished last

    async def run(self, *, known: bool) -> None:
        """Run the chain and write all events, up to the terminal event.

        `known`: this release understands the job's format. Raises StoreUnavailable.
        """
        claim, writer = self._claim, self._writer
        if claim.log_end == 0:  # the store has lost the whole log, or an earlier release let it expire
            await writer.put(started(claim.record))
        why = self._refused() if known else failures.UNSUPPORTED_VERSION
        if why is not None:
            await writer.put(why)
            return
        chain = self._registry.find(claim.record.chain)
        assert chain is not None
        published = await self._published()  # errors here come from the store, not from the chain
        guard.enter(chain.name)
        try:
            await self._chain(chain, published)
        except TooLong:
            await writer.put(TOO_LONG)
        except TooMuch:
            await writer.put(failures.OUTPUT_LIMIT)
        except Unread as unread:
            raise unread.error from None
        except OverTime as over:
            await self._over_time(chain.name, over)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # any exception ends the stream, but not this task
            place = place_of(chain.factory)
            told = explained(error, development=self._settings.is_development, made_at=place)
            if said := failures.hint(error):  # the stack has only frames of a library, so it does not help
                told = f"{said}\n{told.splitlines()[0 if self._settings.is_development else -1]}"
            _log.error("stream %s: chain %s failed: %s", claim.record.id, chain.name, told)
            detail = told if self._settings.is_development else ""
            await writer.put(failures.failure(error, detail))

    def _refused(self) -> Event | None:
        """Do the same as `refused`. Also refuse to resume a stream if its chain no longer has the stage."""
        record = self._claim.record
        why = refused(self._claim, self._settings, self._registry)
        if why is None and record.resumes:
            chain = self._registry.find(record.chain)
            stage, _, _ = record.stopped_at.rpartition(" ")
            if chain is not None and stage not in chain.stages:
                return failures.CHECKPOINT_LOST
        return why

    async def _chain(self, chain: Chain, published: Published) -> None:
        """Run the stages that are not finished. After the run's time budget, another worker runs the rest."""
        made = await self._registry.load(chain.name)
        finished = set(published.finished) | self._claim.record.finished_before
        limits = Limits(self._settings, chain.limits, began=self._began)
        most, put = self._settings.max_checkpoints, self._registry.put(chain.name)
        said, record = self._said(made), self._claim.record
        if said is not None:
            record = await said.recalled()
        stages = Stages(chain.stages, made, record, finished, most=most, put=put)
        stage_run = StageRun(
            *(self._claim, self._writer, self._settings, self._read),
            tries=chain.tries,
            limits=limits,
            retry_on=chain.retry_on,
            spending=self._spending,
            began=self._began,
            savers=self._savers,
            put=put,
            deployment=chain.deployment,
        )
        for step in stages.steps():
            run = await stage_run.run(step, published)
            if run.outcome.is_left:  # a graph stops at the end of a step when the time of its worker is over
                await self._leave(
                    run.rest(), stages.leave(step, run.outcome.usage) | self._spending.settled()
                )
                return
            self.result = run.outcome.result
            checkpoint = stages.finish(step, run.outcome.result, run.outcome.usage)
            settled = self._spending.settled()
            end = [*run.rest(), step.event(finished=True)]
            if step.last or run.outcome.finish_reason == "interrupted":
                if said is not None:
                    await said.keep(await self._folded(end))
                done = self._done(run.outcome, stages.usage)
                await self._writer.put(*end, done, fields=settled | self._waiting(step, run.outcome))
                return
            checkpoint |= settled | ({"usage": sse.dumps(stages.usage)} if stages.usage else {})
            following = chain.stages[step.index + (not step.several) : step.index + 2]
            if not all(map(limits.lets_begin, following)):
                await self._leave(end, checkpoint)
                return
            await self._writer.put(*end, fields=checkpoint | {"failures": 0})
            self._failures = 0
        await self._writer.put(self._done(langchain.Outcome(), stages.usage))

    def _said(self, parts: Mapping[str, Any]) -> Said | None:
        """Return the memory of the stream's thread, or None.

        It is None if the stream has no thread, or if the chain is a graph with checkpoints.
        """
        record, redis = self._claim.record, self._log.connection
        if not record.thread or redis is None or has_checkpoints(parts):
            return None
        return Said(Threads(redis), record, self._settings)

    async def _folded(self, rest: Sequence[Event]) -> Fold:
        """Return the text and state that a reader has after the log and these events.

        Raises StoreUnavailable.
        """
        await self._writer.flush()
        fold = Fold()
        for one in (await whole_log(self._log, self._claim.record.id))[0]:
            fold.feed(one.id, one.event())
        for event in rest:
            fold.feed("", event)
        return fold

    def _waiting(self, step: Step, outcome: langchain.Outcome) -> dict[str, Any]:
        """Return the record's fields that are needed to resume a stream that waits for an answer.

        For any other stream, return no fields.
        """
        if outcome.finish_reason != "interrupted" or not outcome.can_go_on:
            return {}
        return {
            "questions": sse.dumps(outcome.interrupts),
            "pending": sse.dumps(sorted(one["id"] for one in outcome.interrupts)),
            "stopped_at": step.name,
            "thread_ms": round(self._settings.thread_seconds * 1000),
        }

    async def _leave(self, events: Sequence[Event], fields: Mapping[str, Any]) -> None:
        """Hand the job over to another worker, at the end of a stage or of a graph's step.

        This counts as neither a failure nor a try.
        """
        handovers = self._claim.record.handovers + 1
        await self._writer.put(*events, fields={**fields, "failures": 0, "handovers": handovers})
        self._writer.release()  # Both are in the same append, because there is no `await` between them.

    async def _over_time(self, name: str, over: OverTime) -> None:
        """Handle a stage that took too long. Running it again costs money again, so this needs a setting.

        GATEWAY_STAGE_LIMIT_TRIES says how often such a stage may run.
        """
        most = min(self._settings.stage_limit_tries, self._settings.max_failures)
        is_last = self._failures + 1 >= most
        _log.error(
            "stream %s: stage %s of chain %s was stopped after its %g s (%s); %s",
            *(self._claim.record.id, over.stage, name, over.seconds, over.setter),
            "the stream has failed" if is_last else f"it is run again, {self._failures + 2} of {most}",
        )
        if is_last:
            await self._writer.put(failures.over_time(over.stage, over.seconds))
            return
        self._writer.note(failures=self._failures + 1)
        self._writer.release()

    def _done(self, outcome: langchain.Outcome, usage: Mapping[str, int]) -> Event:
        return protocol.done(
            finish_reason=outcome.finish_reason,
            usage=usage,
            usage_lost=self._spending.lost,
            attempts=self._claim.record.attempt,
            duration_ms=self._duration_ms(),
            interrupts=outcome.interrupts,
            upcoming=outcome.upcoming,
        )

    def _duration_ms(self) -> int:
        """Return the milliseconds since the first attempt began."""
        claim = self._claim
        before_ms = claim.now_ms - (claim.record.started_ms or claim.now_ms)
        return before_ms + round((monotonic() - self._began) * 1000)

    async def _published(self) -> Published:
        """Return the events that earlier attempts have written. The first attempt need not read the log."""
        if self._claim.record.attempt == 1:
            return Published()
        return await self._read()

    async def _read(self) -> Published:
        """Return the log up to the place where this claim writes next. Raises StoreUnavailable."""
        return await standing(self._log, self._claim.record.id, self._writer)
