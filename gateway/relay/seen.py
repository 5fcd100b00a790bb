"""Notes that a reader has had a stream's terminal event, for webhooks that are sent only where nobody has.

Only streams with such a webhook are noted: whoever finds a stream for a reader says so by `watch`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from gateway.protocol.errors import HoldfastError, stack_of
from gateway.runtime.tasks import begin
from gateway.store.log import Log

MOST_STREAMS = 10_000  # that are watched at once; past it the oldest are not, and their webhooks are sent
_log = logging.getLogger("holdfast.seen")


class Seen:
    """Of one process. Nothing here waits for the store."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._watched: OrderedDict[str, None] = OrderedDict()
        self._noting: set[asyncio.Task[None]] = set()

    def watch(self, stream_id: str) -> None:
        """A reader of this stream may be about to come."""
        self._watched[stream_id] = None
        self._watched.move_to_end(stream_id)
        if len(self._watched) > MOST_STREAMS:
            self._watched.popitem(last=False)

    def had(self, stream_id: str) -> None:
        """A reader has had its terminal event."""
        if stream_id in self._watched:
            del self._watched[stream_id]
            task = begin(self._note(stream_id), name="seen")
            self._noting.add(task)
            task.add_done_callback(self._noting.discard)

    async def _note(self, stream_id: str) -> None:
        try:
            await self._log.see(stream_id)
        except HoldfastError as error:  # then the webhook is sent, though somebody has the event
            _log.warning("stream %s: that it was read to its end is not noted: %s", stream_id, error.code)
        except Exception as error:
            _log.error("stream %s: that it was read to its end is not noted:\n%s", stream_id, stack_of(error))
