"""Note that a reader has had a stream's terminal event.

Some webhooks are sent only if no reader has had this event. Only streams with such a webhook are noted: the
code that looks up a stream for a reader calls `watch`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from gateway.protocol.errors import HoldfastError, stack_of
from gateway.runtime.tasks import begin
from gateway.store.log import Log

# Limit of the streams that are watched at once. Past the limit the oldest are dropped, and their webhooks are
# sent.
MOST_STREAMS = 10_000
_log = logging.getLogger("holdfast.seen")


class Seen:
    """The watched streams of one process. Its public methods do not wait for the store."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._watched: OrderedDict[str, None] = OrderedDict()
        self._noting: set[asyncio.Task[None]] = set()

    def watch(self, stream_id: str) -> None:
        """Watch a stream, because a reader may connect to it soon."""
        self._watched[stream_id] = None
        self._watched.move_to_end(stream_id)
        if len(self._watched) > MOST_STREAMS:
            self._watched.popitem(last=False)

    def had(self, stream_id: str) -> None:
        """Store that a reader has had the stream's terminal event."""
        if stream_id in self._watched:
            del self._watched[stream_id]
            task = begin(self._note(stream_id), name="seen")
            self._noting.add(task)
            task.add_done_callback(self._noting.discard)

    async def _note(self, stream_id: str) -> None:
        try:
            await self._log.see(stream_id)
        except HoldfastError as error:  # then the webhook is sent, although a reader has the event
            _log.warning("stream %s: that it was read to its end is not noted: %s", stream_id, error.code)
        except Exception as error:
            _log.error("stream %s: that it was read to its end is not noted:\n%s", stream_id, stack_of(error))
