"""The end of a stream whose time is over and that no worker holds, written by whoever finds it first.

The store decides whether the time is over (`deadline` in common.lua). A reader's process, the sweeper and a
worker that gets a late message may all find the same stream; one of them ends it.
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
    """Write the terminal event of this code, one of ENDINGS. Whether this call has ended the stream.

    False when somebody else has ended it or holds it. Raises StoreUnavailable.
    """
    word = (await log.give_up(stream_id, protocol.tag_of(protocol.new_token()), ENDINGS[code])).word
    if word != "over":
        return False
    _log.info("stream %s is given up: %s", stream_id, code)
    telemetry.ended.add(1, {"status": Status.FAILED, "code": code})
    return True


async def end_queued(log: Log, queue: Sender, stream_id: str, code: str) -> None:
    """As `end`; then the place of the stream's job in the queue is free. Raises StoreUnavailable."""
    if await end(log, stream_id, code):
        # A queue that is out of reach frees the place later: when a worker has received the message.
        with suppress(QueueUnavailable):
            await queue.forget(stream_id)
