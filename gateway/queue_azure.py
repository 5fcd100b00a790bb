"""The queue on Azure: Storage Queue, through Microsoft's own client.

Messages are base64, as the portal and the platform's trigger expect them; the queue is made at first use.
A worker that is not the platform's hides a message for a minute and renews that while it works; the lease
in Redis is what notices a dead worker sooner. Whoever sends a job and runs it at once hides its message for a
lease, and so has no need to receive it.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import math
from collections.abc import Awaitable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueClient

from gateway.errors import QueueUnavailable
from gateway.queue import Delivery, Message

SEND_SECONDS = 10.0  # for one call and its tries together
VISIBILITY_SECONDS = 60
RENEW_SECONDS = VISIBILITY_SECONDS / 3
FIRST_POLL_SECONDS = 0.1
COUNT_SECONDS = 5.0
MOST_MESSAGES = 32  # of one receive: the service's own bound
LONGEST_DELAY_SECONDS = 7 * 86400  # likewise
# The message was handed to another, or is gone.
VOID_RECEIPT = ("PopReceiptMismatch", "MessageNotFound", "QueueNotFound")
_log = logging.getLogger("holdfast.queue")


@dataclass(slots=True)
class Held:
    """A message that this process hides from others, for `seconds` and again after each `renew`.

    The lock: a receipt is void once it was renewed.
    """

    message: QueueMessage
    seconds: int
    renew: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    renewing: asyncio.Task[None] | None = None


class AzureQueue:
    """A JobQueue on Storage Queue.

    `poll`, `keep` and `lease` in seconds: the longest pause between two looks at an idle queue, how long a
    message is kept, and how long one is hidden that is run by whoever sends it.
    """

    def __init__(self, client: QueueClient, *, poll: float, keep: float, lease: float) -> None:
        self._client = client
        self._longest_pause = poll
        self._pause = FIRST_POLL_SECONDS
        self._keep = math.ceil(keep)
        self._lease = math.ceil(lease)
        self._held: dict[str, Held] = {}
        self._count, self._counted_at = 0, -math.inf
        self._counting = asyncio.Lock()

    async def reserve(self, stream_id: str, most: int, others: int) -> bool:
        """By the service's own count, which is asked for every 5 s, and what this process has added since.

        Several processes may so pass the bound together by what they start meanwhile.
        """
        async with self._counting:
            if monotonic() - self._counted_at > COUNT_SECONDS:
                began = monotonic()
                self._count = await self.depth()
                self._counted_at = began
            if others >= most - self._count:
                return False
            self._count += 1
            return True

    async def forget(self, stream_id: str) -> None:
        """The service counts it until somebody settles it; the next count is asked for soon."""

    async def enqueue(self, message: Message, delay_ms: int = 0) -> None:
        """Returns when the service has stored it. Raises QueueUnavailable."""
        await self._put(message, min(math.ceil(delay_ms / 1000), LONGEST_DELAY_SECONDS))

    async def enqueue_held(self, message: Message) -> Delivery:
        """Hidden from all others, and as good as received: the answer names it. Raises QueueUnavailable."""
        hidden = min(self._lease, LONGEST_DELAY_SECONDS)
        return self._hold(Held(await self._put(message, hidden), hidden, hidden / 3))

    async def receive(self, count: int) -> list[Delivery]:
        """What is there; nothing is answered after a pause, which grows while nothing comes."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                messages = await self._receive(min(count, MOST_MESSAGES))
        except (AzureError, TimeoutError) as error:
            raise _unavailable(error) from error
        if not messages:
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, self._longest_pause)
            return []
        self._pause = FIRST_POLL_SECONDS
        return [self._hold(Held(message, VISIBILITY_SECONDS, RENEW_SECONDS)) for message in messages]

    async def done(self, delivery: Delivery) -> None:
        """Delete it. Raises QueueUnavailable."""
        held = self._held.pop(delivery.receipt)
        try:
            async with held.lock:
                await self._settle(self._client.delete_message(held.message))
        finally:
            _stop(held)

    async def later(self, delivery: Delivery, delay_ms: int) -> None:
        """Hide it for the delay, then anybody may have it. Raises QueueUnavailable."""
        held = self._held.pop(delivery.receipt)
        hidden = min(math.ceil(delay_ms / 1000), LONGEST_DELAY_SECONDS)
        try:
            async with held.lock:
                await self._settle(self._client.update_message(held.message, visibility_timeout=hidden))
        finally:
            _stop(held)

    def leave(self, delivery: Delivery) -> None:
        """Hide it no longer than it is: it becomes visible by itself."""
        if (held := self._held.pop(delivery.receipt, None)) is not None:
            _stop(held)

    async def depth(self) -> int:
        """How many jobs are queued or running, about. Raises QueueUnavailable."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                found = await self._client.get_queue_properties()
        except ResourceNotFoundError:
            return 0  # it is made at first use
        except (AzureError, TimeoutError) as error:
            raise _unavailable(error) from error
        return found.approximate_message_count or 0

    async def close(self) -> None:
        """Let go; what is held becomes visible within a minute."""
        for held in self._held.values():
            _stop(held)
        self._held.clear()
        await self._client.close()

    async def _put(self, message: Message, hidden: int) -> QueueMessage:
        content = base64.b64encode(message.body or message.encode()).decode()
        keep = max(self._keep, hidden + VISIBILITY_SECONDS)
        send = partial(self._client.send_message, content, visibility_timeout=hidden, time_to_live=keep)
        try:
            async with asyncio.timeout(SEND_SECONDS):
                try:
                    return await send()
                except ResourceNotFoundError:
                    await self._make()
                    return await send()
        except (AzureError, TimeoutError) as error:
            raise _unavailable(error) from error

    async def _receive(self, count: int) -> list[QueueMessage]:
        """One request: a page for each message, as is the client's default, might fail half-way."""
        found = self._client.receive_messages(
            messages_per_page=count, max_messages=count, visibility_timeout=VISIBILITY_SECONDS
        )
        try:
            async for page in found.by_page():
                return [message async for message in page]
        except ResourceNotFoundError:
            await self._make()
        return []

    async def _make(self) -> None:
        try:
            await self._client.create_queue()
            _log.info("queue %s was made", self._client.queue_name)
        except ResourceExistsError:  # by another process, at this moment
            _log.debug("queue %s was there already", self._client.queue_name)

    def _hold(self, held: Held) -> Delivery:
        message = held.message
        held.renewing = asyncio.create_task(self._renew(held), name="queue-renew")
        receipt = f"{message.id} {message.pop_receipt}"
        self._held[receipt] = held
        return Delivery(message.content.encode(), receipt)

    async def _renew(self, held: Held) -> None:
        """Until it is settled, or another has it."""
        while True:
            await asyncio.sleep(held.renew)
            try:
                async with asyncio.timeout(SEND_SECONDS), held.lock:
                    renewed = await self._client.update_message(held.message, visibility_timeout=held.seconds)
                    held.message.pop_receipt = renewed.pop_receipt
            except HttpResponseError as error:
                if _code(error) in VOID_RECEIPT:
                    return
                _log.warning("a message could not be kept hidden: %s", _reason(error))
            except (AzureError, TimeoutError) as error:
                _log.warning("a message could not be kept hidden: %s", _reason(error))

    async def _settle(self, call: Awaitable[object]) -> None:
        """With a receipt that is void by now there is nothing left to settle."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await call
        except (AzureError, TimeoutError) as error:
            if _code(error) not in VOID_RECEIPT:
                raise _unavailable(error) from error


def _stop(held: Held) -> None:
    if held.renewing is not None:
        held.renewing.cancel()


def _unavailable(error: Exception) -> QueueUnavailable:
    """Told to the operator by its kind; a foreign error's text may quote an address or a signature."""
    _log.warning("the queue refuses: %s", _reason(error))
    return QueueUnavailable()


def _code(error: Exception) -> str:
    """The service's own word for it, if it gave one."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")


def _reason(error: Exception) -> str:
    status = getattr(error, "status_code", None)
    return " ".join(str(part) for part in (type(error).__name__, status, _code(error)) if part)
