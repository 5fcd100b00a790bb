"""Run one stage once: within its time limit, matched with the events in the log, with retries."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from types import MappingProxyType
from typing import Any

from gateway.observe import telemetry
from gateway.protocol import Event, EventType
from gateway.protocol.errors import HoldfastError, StoreUnavailable
from gateway.settings import Settings
from gateway.store.record import ANSWER, Claim, Record
from gateway.store.threads import own_thread_of, thread_id
from gateway.writing.matcher import Matcher, Published
from gateway.writing.writer import TooLong, Writer
from workers import langchain
from workers.attempt.failures import judge
from workers.attempt.limits import Limits
from workers.attempt.retry import pause
from workers.chains.retries import Judge
from workers.checkpoints.savers import Savers
from workers.langchain.doubts import ToolUnknown
from workers.langchain.replays import Replays, ToolEnd, name_of
from workers.langchain.shape import is_graph
from workers.langchain.stage import Answer, Pace
from workers.spending import Bill, Spending
from workers.stages import Step, as_input, as_messages

_log = logging.getLogger("holdfast.attempt")


class TooMuch(Exception):
    """The chain has produced more output than allowed."""


class Unread(Exception):
    """The log could not be read from the store. This is an error of the store, not of the chain."""

    def __init__(self, error: StoreUnavailable) -> None:
        super().__init__()
        self.error = error


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a stage: its matcher of published events, and its outcome."""

    matcher: Matcher
    outcome: langchain.Outcome

    def rest(self) -> list[Event]:
        """Return the events to write at the end: a reset if some published events were not matched."""
        return noted(self.matcher.end())


class StageRun:
    """Runs the stages of one claim.

    `read` returns the events in the log before the place where the writer writes next.
    """

    def __init__(
        self,
        claim: Claim,
        writer: Writer,
        settings: Settings,
        read: Callable[[], Awaitable[Published]],
        *,
        tries: Mapping[str, int],
        limits: Limits,
        retry_on: Mapping[str, Judge] = MappingProxyType({}),
        spending: Spending,
        began: float,
        savers: Savers | None = None,
        put: Callable[[str, Sequence[Mapping[str, Any]]], Any] = as_messages,
        deployment: str = "",
    ) -> None:
        self._claim = claim
        self._writer = writer
        self._settings = settings
        self._read = read
        self._tries = tries  # stage -> most tries, for stages with their own number
        self._limits = limits
        self._retry_on = retry_on  # stage -> the rule that judges its failures
        self._spending = spending
        self._answers = dict(claim.record.answers)  # the answers of tools, as the record stores them
        self._answer_bytes = sum(map(len, self._answers.values()))
        self._began = began  # when the claim began, by `monotonic`
        self._savers = savers
        self._put = put  # converts the messages of a question to a stage's input
        self._deployment = deployment or settings.model  # the model name in text events
        self._pieces = 0

    async def run(self, step: Step, published: Published) -> Run:
        """Run the stage, from its `started` event (unless that is in the log) to its last event.

        Raises OverTime, TooMuch, TooLong, Unread, or any exception of the chain.
        """
        if (published.stage, published.run) != (step.stage, step.run):
            published = Published()
            began = step.event(finished=False)
            if self._claim.record.graph is not None and step.alone and is_graph(step.runnable):
                began.data["graph"] = True  # the steps of this graph are published
            await self._writer.put(began, fields={"at": step.name})
        with telemetry.span(f"stage {step.stage}", holdfast_stage=step.stage):
            async with self._limits.pace(step.stage) as pace:
                return await self._tried(step, published, self._place(step, pace))

    async def _tried(self, step: Step, published: Published, place: langchain.Stage) -> Run:
        """Run the stage. Retry it while it fails with temporary failures."""
        reason, tries = "attempt_differs", 0
        while True:
            standing = await langchain.standing_of(
                step.runnable, self._claim.record.params, place, published.events
            )
            run = Run(Matcher(published, self._claim.record.attempt, reason, standing), langchain.Outcome())
            kept = [event for number, event in enumerate(published.events) if number in standing]
            bill = Bill()
            self._spending.begin(_nodes(kept))
            void = [event for number, event in enumerate(published.events) if number not in standing]
            replays = Replays(void, self._answers, run.matcher.upcoming, published.doubtful)
            try:
                fresh = step.index == 0 and not published.events
                here = replace(place, bill=bill, replays=replays)
                await self._try(step, run, kept, here, fresh=fresh)
                run.outcome.usage = self._spending.settle(bill)
                return run
            except Exception as error:
                self._spending.lose(bill)
                tries, reason = tries + 1, "retried"
                # these exceptions come from this product
                if not isinstance(error, TooMuch | TooLong | ToolUnknown | HoldfastError):
                    judge(error, self._retry_on.get(step.stage))
                wait = pause(error, tries, self._tries.get(step.stage, self._settings.stage_tries))
                if wait is None or _is_stopped():
                    raise
                _log.warning("stream %s: stage %s again in %.1f s", self._claim.record.id, step.name, wait)
            await asyncio.sleep(wait)  # the writer renews the lease during the pause
            try:
                published = await self._read()
            except StoreUnavailable as error:
                raise Unread(error) from error

    async def _try(
        self, step: Step, run: Run, kept: list[Event], place: langchain.Stage, *, fresh: bool
    ) -> None:
        began, first = monotonic(), fresh

        async def emit(event: Event) -> None:
            nonlocal first
            is_text = event.type is EventType.MESSAGE
            if is_text:
                self._count()
            if news := self._spending.news(place.bill):
                self._note(news, place.bill)
            if new := run.matcher.take(event):
                if is_text and new[0] is event:  # one more piece of text, as nearly each event is
                    await self._writer.put(event)
                else:
                    await self._writer.put(*noted(new), fields=self._kept(new))
                if first:
                    telemetry.first_token.record(self._age_seconds())
                    first = False
            else:
                self._writer.progressed()

        params = self._claim.record.params
        try:
            await langchain.stream(step.runnable, step.given, params, emit, place, run.outcome, kept)
        finally:
            self._note(self._spending.news(place.bill), place.bill)
        if "output_tokens" in run.outcome.usage:
            telemetry.token_rate.record(run.outcome.usage["output_tokens"] / max(monotonic() - began, 1e-6))

    def _note(self, news: Mapping[str, Any], bill: Bill) -> None:
        """Write to the record what the model calls have used, if `news` has something new."""
        if news:
            self._writer.note(**news)
            if bill.paid:
                self._writer.paid()

    def _place(self, step: Step, pace: Pace) -> langchain.Stage:
        """Return the context of the stage's run.

        Only a graph that is the whole chain runs in the caller's thread.
        """
        record, settings = self._claim.record, self._settings
        own = own_thread_of(record.first or record.id)
        thread = thread_id(record) if step.alone else f"{own} {step.name}"
        memory = None
        if self._savers is not None:
            kept, space = (thread, "") if step.alone else (own, step.name)
            memory = self._savers.memory(record, kept, space)
        lasts = step.alone and bool(record.thread)
        turn = record.turn and as_input(record.turn, partial(self._put, step.stage))
        return langchain.Stage(
            step.stage,
            self._deployment,
            f"{record.owner}/{thread}" if lasts else thread,
            lasts=lasts,
            memory=memory,
            answer=_answer(record) if step.name == record.stopped_at else None,
            turn=turn if lasts else None,
            graph=record.graph if step.alone else None,
            first=record.first,
            keyed=_keyed(record, step),
            doubted=record.doubted,
            owner=record.owner,
            stream_id=record.id,
            attempt=record.attempt,
            metadata=record.metadata,
            claims=record.claims,
            hands_on=not step.last,
            max_event=settings.max_event,
            max_log=settings.max_log,
            pace=pace,
            stands=self._writer.flush,
        )

    def _kept(self, events: list[Event]) -> dict[str, bytes]:
        """Return the record's fields for the tool answers in these events. They have their own size limit."""
        fields = {}
        for event in events:
            if type(event) is not ToolEnd or not event.answer:
                continue
            name = name_of(event)
            self._answer_bytes += len(event.answer)
            if self._answer_bytes <= self._settings.max_checkpoints:
                fields[ANSWER + name] = self._answers[name] = event.answer
        return fields

    def _count(self) -> None:
        """Count a piece of text as one token: a stream reports its tokens only at its end. Raises TooMuch."""
        self._pieces += 1
        if self._pieces > self._settings.max_output_tokens:
            raise TooMuch

    def _age_seconds(self) -> float:
        """Return the age of the stream: by Redis's clock up to the claim, then by this process's clock."""
        claim = self._claim
        return (claim.now_ms - claim.record.created_ms) / 1000 + monotonic() - self._began


def _is_stopped() -> bool:
    """Return whether this task was cancelled.

    The chain may have replaced the cancellation with another exception.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _nodes(events: list[Event]) -> set[str]:
    """Return the names of the node runs that these events finish, as a bill names them."""
    return {
        f"{event.data['name']} {event.data['run']}"
        for event in events
        if event.type is EventType.STAGE and event.data["state"] == "finished"
    }


def _keyed(record: Record, step: Step) -> tuple[str, ...]:
    """Return the parts for the idempotency keys of calls when this stream retries another stream.

    They come from that other stream, so the calls get the same keys. Otherwise return nothing.
    """
    if not record.keyed:
        return ()
    thread = f"{record.owner}/{record.thread}" if step.alone and record.thread else f"stream:{record.keyed}"
    return record.keyed, thread if step.alone else f"{thread} {step.name}"


def _answer(record: Record) -> Answer | None:
    """Return the answer of this stream to the question of the stream that it resumes, or None."""
    return None if record.answer is None else Answer(**record.answer)


def noted(events: list[Event]) -> list[Event]:
    """Return these events unchanged, after counting a reset among them."""
    if events and events[0].type is EventType.RESET:
        telemetry.resets.add(1)
    return events
