"""Delete a stream, with everything that is stored of its input and output.

Later runs of a thread contain earlier messages. Those copies are deleted only with the thread.
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
    """End the stream, if it has not ended, and delete it. A stream past its retention is deleted, too.

    The stream no longer counts for its owner, and its Idempotency-Key is free again. If an error occurs, a
    part may have been deleted: repeat the call to finish. Raises StreamNotFound or StoreUnavailable.
    """
    parts = gateway.parts
    record = await found(gateway, stream_id, owner)
    answer = await parts.log.cancel(record.id, protocol.tag_of(protocol.new_token()))
    if answer.word == "cancelled":
        telemetry.ended.add(1, {"status": protocol.Status.CANCELLED, "code": ""})
        with suppress(QueueUnavailable):  # then its place in the queue becomes free later
            await parts.queue.forget(record.id)
    if record.thread:
        await parts.threads.drop_run(owner, record.thread, record.id)
        # The next check of the thread passes on the turn.
        with suppress(QueueUnavailable, StoreUnavailable):
            await parts.turns.left(record)
    await parts.threads.forget_own(owner, record.first or record.id)
    also = await parts.conversations.also(owner, record.id)
    await parts.conversations.drop(owner, [*also, (OF_STREAM, record.id)])
    # This is the last deletion. After an earlier error the stream can still be found.
    left = await parts.log.erase(record.id)
    if record.has_webhook:
        await parts.outbox.forget(owner, record.id)
    waited = answer.number if answer.word == "dropped" else 0
    longer = max(waited - left[0], 0) if left[0] > 0 else 0
    await parts.creation.forget(owner, {record.id: (left[0] + longer, left[1] + longer)})


async def found(gateway: Gateway, stream_id: str, owner: str) -> Record:
    """Return the owner's stream, even if only its record is left. Raises StreamNotFound."""
    with suppress(StreamGone):
        return await gateway.find(stream_id, owner)
    record = (await gateway.parts.log.look(stream_id, owner)).record
    if record is None:
        raise StreamNotFound
    return record
