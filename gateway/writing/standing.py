"""What stands in the log before the position where a claim writes next: a new attempt must match this."""

from __future__ import annotations

from gateway.protocol import sse
from gateway.protocol.errors import CursorLost, StoreUnavailable
from gateway.store.log import Log
from gateway.writing.matcher import Published
from gateway.writing.writer import Writer

MOST_READS = 5  # of a log whose end the store loses again and again; after each the end is written again


async def standing(log: Log, stream_id: str, writer: Writer) -> Published:
    """The last unfinished stage as it stands in the log, once all that the writer has was appended.

    A store that fails over can lose the end of the log after the last append and before this read. The next
    append would write that end again, although the stage was matched without it. So a read that does not end
    at the writer's last event is dropped. Then an empty append makes the writer restore the end of the log,
    or ends this claim, and the log is read again.

    Raises StoreUnavailable when the store loses the end of the log again and again.
    """
    for _ in range(MOST_READS):
        await writer.flush()
        messages, last = await whole_log(log, stream_id)
        if last == writer.last_id:
            return Published.read(messages)
        await writer.put()
    raise StoreUnavailable


async def whole_log(log: Log, stream_id: str) -> tuple[list[sse.Message], str]:
    """The log's messages, and the id of the last one; no id when the log was cut during the read."""
    messages: list[sse.Message] = []
    after, at_end = None, False
    while not at_end:
        try:
            piece = await log.read(stream_id, after)
        except CursorLost:
            return [], ""
        messages += sse.Decoder().feed(piece.frames)
        after, at_end = piece.last, piece.at_end
    return messages, str(after or "")
