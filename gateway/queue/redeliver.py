"""Deliver a job again that no worker has claimed, or end its stream.

A relay does this when a lease ends; the sweeper does it too. `ask` allows one delivery in each back-off
period for all processes together. So a thousand relays that see the end of one lease send one message. A
stream whose time is over does not run again: it is ended here. A stream that waits for the turn of its thread
is not enqueued. But its thread is tended here: if the stream that has the turn is over, the turn is passed
on.
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
    """Enqueue the stream again, or end it. Return whether it was enqueued. `backoff` is in seconds.

    Raises StoreUnavailable or QueueUnavailable.
    """
    answer = await log.ask(stream_id, round(backoff * 1000))
    if answer.word == "over":
        await overdue.end_queued(log, queue, stream_id, answer.code)
    if answer.word != "yes":
        return False
    owner, thread = await log.thread_of(stream_id)
    if await Turns(log, queue).must_wait(stream_id, owner, thread):
        await log.ask(stream_id, round(backoff * 1000), undo=True)  # so that the stream is checked again soon
        return False
    _log.info("stream %s: nobody holds it, it is enqueued again", stream_id)
    try:
        await queue.enqueue(Message(stream_id, answer.trace))
    except QueueUnavailable:
        await log.ask(stream_id, round(backoff * 1000), undo=True)
        raise
    telemetry.revived.add(1)
    return True
