"""Deletion of a stream, with everything that is kept of what it was asked and has said.

A thread's later runs hold earlier messages: what those have goes with the thread.
"""

from __future__ import annotations

from contextlib import suppress

from gateway import protocol
from gateway.observe import telemetry
from gateway.protocol.errors import QueueUnavailable, StoreUnavailable, StreamGone, StreamNotFound
from gateway.store.conversations import OF_STREAM
from gateway.store.record import Record
from gateway.streams.service import Gateway


async def purge(gateway: Gateway, stream_id: str, owner: str) -> None:
    """End the stream, if it has not ended, and delete it; also one that is past its retention.

    What it has counted for is the owner's again, and its Idempotency-Key asks as if for the first time. After
    an error a part may have been deleted: the same call goes on. Raises StreamNotFound or StoreUnavailable.
    """
    parts = gateway.parts
    record = await found(gateway, stream_id, owner)
    answer = await parts.log.cancel(record.id, protocol.tag_of(protocol.new_token()))
    if answer.word == "cancelled":
        telemetry.ended.add(1, {"status": protocol.Status.CANCELLED, "code": ""})
        with suppress(QueueUnavailable):  # its place in the queue is free later, then
            await parts.queue.forget(record.id)
    if record.thread:
        await parts.threads.drop_run(owner, record.thread, record.id)
        with suppress(QueueUnavailable, StoreUnavailable):  # the next look at the thread hands it on
            await parts.turns.left(record)
    await parts.threads.forget_own(owner, record.first or record.id)
    also = await parts.conversations.also(owner, record.id)
    await parts.conversations.drop(owner, [*also, (OF_STREAM, record.id)])
    left = await parts.log.erase(record.id)  # the last, so that an error before leaves it to be found again
    if record.has_webhook:
        await parts.outbox.forget(owner, record.id)
    waited = answer.number if answer.word == "dropped" else 0
    longer = max(waited - left[0], 0) if left[0] > 0 else 0
    await parts.creation.forget(owner, {record.id: (left[0] + longer, left[1] + longer)})


async def found(gateway: Gateway, stream_id: str, owner: str) -> Record:
    """The owner's stream, also one of which only the record is left. Raises StreamNotFound."""
    with suppress(StreamGone):
        return await gateway.find(stream_id, owner)
    record = (await gateway.parts.log.look(stream_id, owner)).record
    if record is None:
        raise StreamNotFound
    return record
