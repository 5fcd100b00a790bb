"""Queue messages, polled and settled as the host's queue listener does it.

The rules are those of Microsoft.Azure.WebJobs.Extensions.Storage.Queues (QueueListener,
QueueProcessor): a message is hidden for ten minutes, renewed at five; deleted after a
success; shown again after host.json's visibilityTimeout when the function failed; moved to
`<queue>-poison` when it failed maxDequeueCount times, or was delivered more often than
that without an end. A poison queue has no poison queue: there a message stays hidden.

Invariant: a message is settled only after its function has ended.
"""

import asyncio
import base64
import binascii
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueClient

from .bindings import BindingError

LOG = logging.getLogger(__name__)
HIDDEN_S = 600
RENEW_S = 300
FIRST_POLL_S = 0.1
POISON = "-poison"

Deliver = Callable[[str, int], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """`extensions.queues` of host.json, with the defaults of the host."""

    max_polling_interval_s: float = 60.0
    visibility_timeout_s: float = 0.0
    batch_size: int = 16
    new_batch_threshold: int = 8
    max_dequeue_count: int = 5
    base64: bool = True

    @classmethod
    def read(cls, app_dir: Path) -> Self:
        """Read the options. Raises BindingError for a name that the host does not know."""
        path = app_dir / "host.json"
        found = json.loads(path.read_text("utf-8")) if path.exists() else {}
        queues = dict(found.get("extensions", {}).get("queues", {}))
        options = cls(
            max_polling_interval_s=_seconds(queues.pop("maxPollingInterval", "00:01:00")),
            visibility_timeout_s=_seconds(queues.pop("visibilityTimeout", "00:00:00")),
            batch_size=queues.pop("batchSize", 16),
            new_batch_threshold=queues.pop("newBatchThreshold", 8),
            max_dequeue_count=queues.pop("maxDequeueCount", 5),
            base64=queues.pop("messageEncoding", "base64") == "base64",
        )
        if queues:
            raise BindingError(f"host.json: extensions.queues has unknown names: {sorted(queues)}")
        return options


class QueueListener:
    """Poll one queue. `deliver` runs the function with text and dequeue count, and returns whether it
    succeeded."""

    def __init__(self, connection: str, queue_name: str, options: QueueOptions, deliver: Deliver) -> None:
        self._queue = QueueClient.from_connection_string(connection, queue_name)
        poison = None
        if not queue_name.endswith(POISON):
            poison = QueueClient.from_connection_string(connection, queue_name + POISON)
        self._poison = poison
        self._options = options
        self._deliver = deliver
        self._running: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._stopped = False

    @property
    def of_poison(self) -> bool:
        """Return whether this is a poison queue, which gets the messages that always failed."""
        return self._poison is None

    def wake(self) -> None:
        """Poll now. If there is no message, the interrupted pause begins again."""
        self._woken.set()

    def stop(self) -> None:
        """Stop polling. A running message is settled when its function has ended."""
        self._stopped = True
        self._woken.set()

    async def run(self) -> None:
        """Poll until `stop`, and then until the running messages are settled; or until cancelled."""
        pause = FIRST_POLL_S
        try:
            while not self._stopped:
                await self._room()
                if self._stopped:
                    break
                if messages := await self._receive():
                    pause = FIRST_POLL_S
                    for message in messages:
                        task = asyncio.create_task(self._process(message))
                        self._running.add(task)
                        task.add_done_callback(self._running.discard)
                else:
                    pause = await self._rest(pause)
            if self._running:
                await asyncio.wait(self._running)
        finally:
            for client in (self._queue, self._poison):
                if client is not None:
                    await client.close()

    async def _rest(self, pause: float) -> float:
        """Pause; return the length of the next pause."""
        try:
            async with asyncio.timeout(pause):
                await self._woken.wait()
        except TimeoutError:
            return min(pause * 2, self._options.max_polling_interval_s)
        self._woken.clear()
        return pause

    async def _room(self) -> None:
        while len(self._running) > self._options.new_batch_threshold and not self._stopped:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def _receive(self) -> list[QueueMessage]:
        pages = self._queue.receive_messages(
            max_messages=self._options.batch_size, visibility_timeout=HIDDEN_S
        )
        try:
            return [message async for message in pages]
        except ResourceNotFoundError:
            return []  # the queue was not created yet
        except AzureError as error:
            LOG.warning("queue %s cannot be polled: %s", self._queue.queue_name, type(error).__name__)
            return []

    async def _process(self, message: QueueMessage) -> None:
        try:
            text = self._text(message)
            count = message.dequeue_count or 1
            sick = text is None or count > self._options.max_dequeue_count
            if self._poison is not None and sick:
                return await self._give_up(message)
            renewing = asyncio.create_task(self._renew(message))
            try:
                succeeded = await self._deliver(text or "", count)
            finally:
                renewing.cancel()
            await self._settle(message, succeeded)
        except HttpResponseError as error:
            LOG.warning("a message was not settled: %s", error.status_code)

    def _text(self, message: QueueMessage) -> str | None:
        if not self._options.base64:
            return str(message.content)
        try:
            return base64.b64decode(message.content, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None

    async def _settle(self, message: QueueMessage, succeeded: bool) -> None:
        if succeeded:
            await self._queue.delete_message(message)
        elif self._poison is None:
            return
        elif (message.dequeue_count or 1) >= self._options.max_dequeue_count:
            await self._give_up(message)
        else:
            hidden = round(self._options.visibility_timeout_s)
            await self._queue.update_message(message, visibility_timeout=hidden)

    async def _give_up(self, message: QueueMessage) -> None:
        assert self._poison is not None
        with suppress(ResourceExistsError):
            await self._poison.create_queue()
        await self._poison.send_message(message.content)
        await self._queue.delete_message(message)

    async def _renew(self, message: QueueMessage) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            renewed = await self._queue.update_message(message, visibility_timeout=HIDDEN_S)
            message.pop_receipt = renewed.pop_receipt


def _seconds(span: str) -> float:
    """Return the seconds of a .NET TimeSpan in the form hh:mm:ss."""
    hours, minutes, seconds = span.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes), seconds=float(seconds)).total_seconds()
