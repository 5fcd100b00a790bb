"""A job that nobody holds is delivered again, or ended: by a relay at its lease's end, or by the sweeper.

`ask` lets a job be enqueued once in a back-off, whoever asks, so a thousand relays that see one lease end
send one message. A stream whose time is over is not run any more: it ends here. One that waits for the turn
of its thread is not sent; but its thread is tended, so that it gets the turn of a stream that is over.
"""

from __future__ import annotations

import logging

from gateway.observe import telemetry
from gateway.protocol.errors import QueueUnavailable
from gateway.queue import overdue
from gateway.queue.job_queue import Message, Sender
from gateway.queue.turns import Turns
from gateway.store.log import Log

_log = logging.getLogger("holdfast.revive")


async def revive(log: Log, queue: Sender, stream_id: str, *, backoff: float) -> bool:
    """Enqueue it if it may be, or end it; `backoff` in seconds. Whether it was enqueued.

    Raises StoreUnavailable or QueueUnavailable.
    """
    answer = await log.ask(stream_id, round(backoff * 1000))
    if answer.word == "over":
        await overdue.end_queued(log, queue, stream_id, answer.code)
    if answer.word != "yes":
        return False
    owner, thread = await log.thread_of(stream_id)
    if await Turns(log, queue).must_wait(stream_id, owner, thread):
        await log.ask(stream_id, round(backoff * 1000), undo=True)  # so that it is looked at again soon
        return False
    _log.info("stream %s: nobody holds it, it is enqueued again", stream_id)
    try:
        await queue.enqueue(Message(stream_id, answer.trace))
    except QueueUnavailable:
        await log.ask(stream_id, round(backoff * 1000), undo=True)
        raise
    telemetry.revived.add(1)
    return True
