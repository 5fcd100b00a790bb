"""Read the part of the log before the position where a claim writes next.

A new attempt must match these events.
"""

from __future__ import annotations

from gateway.protocol import sse
from gateway.protocol.errors import CursorLost, StoreUnavailable
from gateway.store.log import Log
from gateway.writing.matcher import Published
from gateway.writing.writer import Writer

# Most reads of a log whose end the store loses repeatedly. After each read the end is written again.
MOST_READS = 5


async def standing(log: Log, stream_id: str, writer: Writer) -> Published:
    """Append all events of the writer, then return the last unfinished stage of the log.

    When a store fails over, it can lose the end of the log between the last append and this read. The next
    append would write that end again, but the stage would have been matched without it. So a read that does
    not end at the writer's last event is discarded. Then an empty append makes the writer restore the end of
    the log, or ends this claim, and the log is read again.

    Raises StoreUnavailable if the store loses the end of the log repeatedly.
    """
    for _ in range(MOST_READS):
        await writer.flush()
        messages, last = await whole_log(log, stream_id)
        if last == writer.last_id:
            return Published.read(messages)
        await writer.put()
    raise StoreUnavailable


async def whole_log(log: Log, stream_id: str) -> tuple[list[sse.Message], str]:
    """Return the messages of a log, and the id of the last one.

    The id is empty if the log was cut during the read.
    """
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
