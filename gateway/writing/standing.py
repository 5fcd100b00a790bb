"""What stands in the log before the place where a claim writes next: a new attempt must match just that."""

from __future__ import annotations

from gateway.protocol import sse
from gateway.protocol.errors import CursorLost, StoreUnavailable
from gateway.store.log import Log
from gateway.writing.matcher import Published
from gateway.writing.writer import Writer

MOST_READS = 5  # of a log whose tail the store loses again and again, each followed by a restored tail


async def standing(log: Log, stream_id: str, writer: Writer) -> Published:
    """The last unfinished stage as it stands, read when all that the writer was given has been appended.

    A store that fails over can lose the log's tail after the last append and before this read. The writer
    would write that tail again with the next append, behind a stage that has matched less. So a read that
    does not end at the writer's last event is thrown away. An empty append then makes the writer restore
    the tail, or ends this claim; and the log is read again.

    Raises StoreUnavailable when the store keeps losing it.
    """
    for _ in range(MOST_READS):
        await writer.flush()
        messages, last = await whole_log(log, stream_id)
        if last == writer.last_id:
            return Published.read(messages)
        await writer.put()
    raise StoreUnavailable


async def whole_log(log: Log, stream_id: str) -> tuple[list[sse.Message], str]:
    """The log's messages, and the id of the last; no id when the log was cut while it was read."""
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
