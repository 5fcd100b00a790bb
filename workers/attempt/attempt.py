"""One attempt at a job: run the chain, write its events, one terminal event, whatever the chain does.

An attempt that goes on where another fell reads the log first and repeats nothing that already stands.
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
    """Why this job is not run, if it is not: its chain is gone, or its attempts are spent."""
    record = claim.record
    if registry.find(record.chain) is None:
        return failures.UNKNOWN_CHAIN
    if record.failures >= settings.max_failures or _tries(record) > settings.max_attempts:
        return failures.ATTEMPTS_EXHAUSTED
    return None


def _tries(record: Record) -> int:
    """Claims, but for those that ended at a finished stage: each of them was a step of the chain."""
    return record.attempt - record.handovers


class Attempt:
    """What a claim runs; `run` ends with a terminal event handed to the writer.

    Cancelling it ends the model's call.
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
        self._failures = claim.record.failures  # since the last finished stage
        self._spending = Spending(claim.record)
        self.result: Any = None  # of the last run of a stage that has come to its end

    async def run(self, *, known: bool) -> None:
        """Everything up to the terminal event. `known`: this release understands the job.

        Raises StoreUnavailable.
        """
        claim, writer = self._claim, self._writer
        if claim.log_end == 0:  # the store has lost the log whole, or an earlier release let it expire
            await writer.put(started(claim.record))
        why = self._refused() if known else failures.UNSUPPORTED_VERSION
        if why is not None:
            await writer.put(why)
            return
        chain = self._registry.find(claim.record.chain)
        assert chain is not None
        published = await self._published()  # its errors are the store's, not the chain's
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
        except BaseException as error:  # whatever it is, it ends the stream, not this task
            place = place_of(chain.factory)
            told = explained(error, development=self._settings.is_development, made_at=place)
            if said := failures.hint(error):  # the stack is a library's own, and says no more
                told = f"{said}\n{told.splitlines()[0 if self._settings.is_development else -1]}"
            _log.error("stream %s: chain %s failed: %s", claim.record.id, chain.name, told)
            detail = told if self._settings.is_development else ""
            await writer.put(failures.failure(error, detail))

    def _refused(self) -> Event | None:
        """As `refused`; a chain that has changed cannot go on where its stream has stopped."""
        record = self._claim.record
        why = refused(self._claim, self._settings, self._registry)
        if why is None and record.resumes:
            chain = self._registry.find(record.chain)
            stage, _, _ = record.stopped_at.rpartition(" ")
            if chain is not None and stage not in chain.stages:
                return failures.CHECKPOINT_LOST
        return why

    async def _chain(self, chain: Chain, published: Published) -> None:
        """The stages that are not finished; past the run's budget the rest is another worker's."""
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
            if run.outcome.is_left:  # a graph, at the end of a step, its worker's time being up
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
        """What the stream's thread remembers, where it has one and the chain is no graph with checkpoints."""
        record, redis = self._claim.record, self._log.connection
        if not record.thread or redis is None or has_checkpoints(parts):
            return None
        return Said(Threads(redis), record, self._settings)

    async def _folded(self, rest: Sequence[Event]) -> Fold:
        """What a reader knows after the log and these events. Raises StoreUnavailable."""
        await self._writer.flush()
        fold = Fold()
        for one in (await whole_log(self._log, self._claim.record.id))[0]:
            fold.feed(one.id, one.event())
        for event in rest:
            fold.feed("", event)
        return fold

    def _waiting(self, step: Step, outcome: langchain.Outcome) -> dict[str, Any]:
        """The fields of the record by which a stream that has stopped can be resumed; none for any other."""
        if outcome.finish_reason != "interrupted" or not outcome.can_go_on:
            return {}
        return {
            "questions": sse.dumps(outcome.interrupts),
            "pending": sse.dumps(sorted(one["id"] for one in outcome.interrupts)),
            "stopped_at": step.name,
            "thread_ms": round(self._settings.thread_seconds * 1000),
        }

    async def _leave(self, events: Sequence[Event], fields: Mapping[str, Any]) -> None:
        """Hand over to another worker, at the end of a stage or of a graph's step: no failure, and no try."""
        handovers = self._claim.record.handovers + 1
        await self._writer.put(*events, fields={**fields, "failures": 0, "handovers": handovers})
        self._writer.release()  # in that same append, as nothing has awaited since

    async def _over_time(self, name: str, over: OverTime) -> None:
        """A stage has taken too long. To run it again is to pay for it again: only where that is wanted."""
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
        """Since the first attempt began."""
        claim = self._claim
        before_ms = claim.now_ms - (claim.record.started_ms or claim.now_ms)
        return before_ms + round((monotonic() - self._began) * 1000)

    async def _published(self) -> Published:
        """What earlier attempts have written; the first has nothing to read but `start`."""
        if self._claim.record.attempt == 1:
            return Published()
        return await self._read()

    async def _read(self) -> Published:
        """What stands in the log before the place where this claim writes next. Raises StoreUnavailable."""
        return await standing(self._log, self._claim.record.id, self._writer)
