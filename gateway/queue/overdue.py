"""End a stream whose time is over and that no worker has claimed.

Any process that finds such a stream ends it. The store decides whether the time is over (`deadline` in
common.lua). A reader's process, the sweeper, and a worker that gets a late message may all find the same
stream. Only one of them ends it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress

from gateway import protocol
from gateway.observe import telemetry
from gateway.protocol import Event, Status
from gateway.protocol.errors import QueueUnavailable
from gateway.queue.job_queue import Sender
from gateway.store.log import Log

TIME_LIMIT = protocol.failed("time_limit", "The run took longer than this gateway allows.", retryable=False)
WAIT_LIMIT = protocol.failed("wait_limit", "No worker has begun the job in time.", retryable=True)
PRODUCER_LOST = protocol.failed("producer_lost", "The stream's producer has fallen silent.", retryable=True)
ENDINGS: Mapping[str, Event] = {
    event.data["code"]: event for event in (TIME_LIMIT, WAIT_LIMIT, PRODUCER_LOST)
}
_log = logging.getLogger("holdfast.overdue")


async def end(log: Log, stream_id: str, code: str) -> bool:
    """Write the terminal event for this code, which is a key of ENDINGS.

    Return whether this call ended the stream.

    Return False if another process has ended the stream or has claimed it. Raises StoreUnavailable.
    """
    word = (await log.give_up(stream_id, protocol.tag_of(protocol.new_token()), ENDINGS[code])).word
    if word != "over":
        return False
    _log.info("stream %s is given up: %s", stream_id, code)
    telemetry.ended.add(1, {"status": Status.FAILED, "code": code})
    return True


async def end_queued(log: Log, queue: Sender, stream_id: str, code: str) -> None:
    """Call `end`. If it ended the stream, free the place of its job in the queue. Raises StoreUnavailable."""
    if await end(log, stream_id, code):
        # If the queue cannot be reached, the place becomes free later, when a worker receives the message.
        with suppress(QueueUnavailable):
            await queue.forget(stream_id)
