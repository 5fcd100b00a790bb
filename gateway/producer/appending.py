"""Append the lines that a producer sends by HTTP.

Each line is written once, even if it is sent several times.

A repeated request may go to another process, because no process keeps a state of the producer. The record
stores how many lines are counted, and the position of the producer within its stages. Both change in the
append that writes the lines, or in `advance` if no line must be written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from gateway.observe import loglines, telemetry
from gateway.producer.lines import Line, parse
from gateway.producer.plan import Plan, Planning
from gateway.protocol import TERMINAL_EVENTS
from gateway.protocol.errors import StoreUnavailable, Unauthorized, WriterEnded, WriterReplaced, WrongPosition
from gateway.protocol.sse import Message
from gateway.runtime.off_loop import aside
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.record import Claim, Record
from gateway.streams import write_tokens
from gateway.streams.strict_json import Bounds
from gateway.writing.standing import whole_log

MOST_TRIES = 5  # most tries of one request, after concurrent requests or a lost log end
_log = logging.getLogger("holdfast.producer")
# Returns a context that waits for the memory and the turn to read a whole log.
Reading = Callable[[Record], AbstractAsyncContextManager[None]]


class Appending:
    """Writes lines into streams. `reading` is entered while a whole log is in memory."""

    def __init__(self, log: Log, settings: Settings, reading: Reading) -> None:
        self._log_of = log
        self._settings = settings
        self._bounds = Bounds.of(settings)
        self._lease_ms = round(settings.producer_grace * 1000)
        self._reading = reading

    async def held(self, stream_id: str, token: str) -> tuple[Record, int]:
        """Return the stream that this token may write, and the position of its log's end.

        Raises Unauthorized for a token that was not issued for the stream, WriterReplaced if another token
        may write it now, or StoreUnavailable.
        """
        record, log_end = await self._log_of.record(stream_id)
        if record is None or not record.producer or not write_tokens.is_ours(record.write_key, token):
            raise Unauthorized
        if record.token != write_tokens.claim_in(token) and not record.ended:
            raise WriterReplaced
        return record, log_end

    async def add(self, stream_id: str, token: str, position: int, body: bytes) -> tuple[int, str]:
        """Write the lines of a body, except the lines that are already counted.

        The first line of the body has the number `position`. Return how many lines are counted then, and the
        status of the stream. Raises as `held`, or WrongPosition, WriterEnded or Invalid.
        """
        lines: list[Line] | None = None
        for _ in range(MOST_TRIES):
            record, log_end = await self.held(stream_id, token)
            if lines is None:
                lines = await aside(len(body), lambda: parse(body, self._bounds), record.owner)
            if record.ended:
                _check_ended(record, token, position, lines)
                return position + len(lines), record.status.value
            if position > record.lines:
                raise WrongPosition(record.lines)
            left = lines[record.lines - position :]
            answer = await self._write(record, log_end, token, left, len(body))
            if answer is not None:
                return answer
        raise StoreUnavailable

    async def _write(
        self, record: Record, log_end: int, token: str, left: Sequence[Line], size: int
    ) -> tuple[int, str] | None:
        """Return the result of `add`; None if the stream has changed in the meantime."""
        claim = Claim(record, write_tokens.claim_in(token), 0, log_end)
        if not left:
            word = (await self._log_of.append(claim, log_end, b"", record.last_id, self._lease_ms)).word
            return (record.lines, record.status.value) if word == "ok" else None
        following = record.lines + len(left)
        plan = await self._planned(record, log_end, left, size)
        if plan is None:
            return None
        if not plan.frames:
            given = (log_end, record.lines, following, plan.course, self._lease_ms)
            word = (await self._log_of.advance(claim, *given)).word
            return (following, record.status.value) if word == "ok" else None
        answer = await self._log_of.append(
            claim, log_end, plan.frames, plan.last_id, self._lease_ms, status=plan.status, fields=plan.fields
        )
        if answer.word not in ("ok", "duplicate"):
            return None
        if plan.final is not None:
            self._tell(record, plan)
            if "lines" not in plan.fields:  # the lines did not fit into the log, so the stream failed
                raise WriterEnded(plan.status)
        return following, plan.status or record.status.value

    async def _planned(self, record: Record, log_end: int, left: Sequence[Line], size: int) -> Plan | None:
        following, age_ms = record.lines + len(left), 0
        if left[-1].type == "done":
            age_ms = await self._log_of.now_ms(self._log_of.keys(record.id)[0]) - (record.started_ms or 0)

        def plan(messages: Sequence[Message]) -> Plan:
            return Planning(record, log_end, messages, self._settings, age_ms).plan(left, following)

        if not Planning.needs_log(record, left):
            return await aside(size, lambda: plan(()), record.owner)
        async with self._reading(record):
            messages, last_id = await whole_log(self._log_of, record.id)
            if last_id != record.last_id:
                return None
            return await aside(max(size, log_end), lambda: plan(messages), record.owner)

    def _tell(self, record: Record, plan: Plan) -> None:
        assert plan.final is not None
        code = plan.final.data.get("code", "")
        telemetry.ended.add(1, {"status": TERMINAL_EVENTS[plan.final.type], "code": code})
        loglines.tell(
            _log,
            logging.INFO,
            "produced",
            stream=record.id,
            chain=record.chain,
            attempt=record.attempt,
            status=plan.status,
            code=code,
        )


def _check_ended(record: Record, token: str, position: int, lines: Sequence[Line]) -> None:
    """Check a request whose stream has ended.

    The request may repeat lines that were counted, and the same end. Raises WriterEnded for other lines, and
    for a request without lines.
    """
    is_holder = record.token == write_tokens.claim_in(token)
    left = lines[max(0, record.lines - position) :] if is_holder else lines
    is_same_end = len(left) == 1 and left[0].ends == record.status.value
    if not lines or (left and not is_same_end):
        raise WriterEnded(record.status.value)
