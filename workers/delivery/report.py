"""Report the result of an attempt in the log and the metrics. Every attempt gets exactly one log line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from gateway.observe import loglines, telemetry
from gateway.protocol import TERMINAL_EVENTS
from gateway.store.record import Claim
from gateway.writing.writer import Writer

_log = logging.getLogger("holdfast.attempt")


class Outcome:
    """The result of one attempt. Create it when the attempt begins, because it measures the duration."""

    def __init__(self, claim: Claim, writer: Writer) -> None:
        self._claim = claim
        self._writer = writer
        self._began = monotonic()

    def tell(self, word: str) -> None:
        """Write the log line. It has a status only if this attempt has written the terminal event.

        `word` is the answer of the store, `handed over`, or `store` (the store was unreachable).
        """
        record, final = self._claim.record, self._writer.final
        status = code = ""
        usage = None
        if word == "ok" and final is not None:
            status, code, usage = (
                TERMINAL_EVENTS[final.type],
                final.data.get("code", ""),
                final.data.get("usage"),
            )
            telemetry.attempts.record(record.attempt)
            telemetry.ended.add(1, {"status": status, "code": code})
        loglines.tell(
            _log,
            logging.WARNING if word == "store" else logging.INFO,
            "attempt",
            stream=record.id,
            chain=record.chain,
            owner=record.owner,
            attempt=record.attempt,
            word=word,
            status=status,
            code=code,
            ms=round((monotonic() - self._began) * 1000),
            events=self._writer.events,
            bytes=self._writer.bytes,
            usage=usage,
            trace=loglines.trace_id(record.trace),
        )


@contextmanager
def running() -> Iterator[None]:
    """Count an attempt as running in this process inside the `with` block."""
    telemetry.running.add(1)
    try:
        yield
    finally:
        telemetry.running.add(-1)
