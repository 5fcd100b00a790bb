"""What an attempt came to, for the log and the metrics: one line, whatever ended it."""

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
    """Begins with its attempt. `tell` takes the store's word, `handed over`, or `store` (out of reach)."""

    def __init__(self, claim: Claim, writer: Writer) -> None:
        self._claim = claim
        self._writer = writer
        self._began = monotonic()

    def tell(self, word: str) -> None:
        """Write the line. A status stands in it only if this attempt has written it."""
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
    """An attempt runs in this process."""
    telemetry.running.add(1)
    try:
        yield
    finally:
        telemetry.running.add(-1)
