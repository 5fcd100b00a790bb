"""The queue on Azure Storage Queue, which uses Microsoft's own client.

Messages are base64, as the Azure portal and the platform's trigger expect them. The queue is created at its
first use. A worker that the platform's trigger did not start hides a message for a minute, and renews that
while it works. The lease in Redis detects a dead worker sooner than this minute. A process that sends a job
and runs it at once hides the message for the time of a lease, so it need not receive the message.

Hidden messages that wait are in a second queue, `<name>-held`. The reason: the platform scales the trigger of
the jobs' queue by all messages of that queue, including hidden ones. It would start an instance for every
twelve jobs that run elsewhere. The second queue has no trigger. `release` moves messages that are visible
again from the second queue to the jobs' queue.
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

from gateway.protocol.errors import QueueUnavailable
from gateway.queue.job_queue import Delivery, Message

HELD = "-held"  # suffix of the second queue's name
SEND_SECONDS = 10.0  # time limit of one call with all its tries
VISIBILITY_SECONDS = 60
RENEW_SECONDS = VISIBILITY_SECONDS / 3
FIRST_POLL_SECONDS = 0.1
COUNT_SECONDS = 5.0
MOST_MESSAGES = 32  # most messages of one receive, a limit of the service
MOST_RELEASED = 1024  # most messages of one `release`; the next call moves the rest
LONGEST_DELAY_SECONDS = 7 * 86400  # the longest time for which the service hides a message
# Error codes: another process has the message now, or the message is gone.
VOID_RECEIPT = ("PopReceiptMismatch", "MessageNotFound", "QueueNotFound")
_log = logging.getLogger("holdfast.queue")


@dataclass(slots=True)
class Held:
    """A message that this process hides from other processes for `seconds`.

    It is hidden again every `renew` seconds. The lock is needed because each renewal makes the old receipt
    invalid.
    """

    queue: QueueClient  # the queue that contains the message
    message: QueueMessage
    seconds: int
    renew: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    renewing: asyncio.Task[None] | None = None


class AzureQueue:
    """A JobQueue on two Storage queues: `client` for workers, `waiting` for messages hidden until later.

    All times are in seconds. `poll`: the longest pause between two reads of an empty queue. `keep`: how long
    the service keeps a message. `lease`: how long a message is hidden whose sender runs the job itself.
    """

    def __init__(
        self, client: QueueClient, waiting: QueueClient, *, poll: float, keep: float, lease: float
    ) -> None:
        self._client = client
        self._waiting = waiting
        self._look = lease / 3  # `receive` calls `release` once in this period
        self._looked_at = -math.inf
        self._longest_pause = poll
        self._pause = FIRST_POLL_SECONDS
        self._keep = math.ceil(keep)
        self._lease = math.ceil(lease)
        self._held: dict[str, Held] = {}
        self._count, self._counted_at = 0, -math.inf
        self._counting = asyncio.Lock()

    async def reserve(self, stream_id: str, most: int, others: int) -> bool:
        """Reserve a place, using the service's own count.

        The count is read every 5 seconds. The jobs that this process added since then are added to it.
        Several processes together may exceed the bound by the jobs that they start between two reads.
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
        """Do nothing. The service counts the message until it is settled. The count is read again soon."""

    async def enqueue(self, message: Message, delay_ms: int = 0) -> None:
        """Send a job. Return when the service has stored the message. Raises QueueUnavailable.

        With a delay the message waits in the second queue. The first `release` after the delay moves it to
        the jobs' queue.
        """
        content = base64.b64encode(message.body or message.encode()).decode()
        hidden = min(math.ceil(delay_ms / 1000), LONGEST_DELAY_SECONDS)
        await self._put(self._waiting if hidden else self._client, content, hidden)

    async def enqueue_held(self, message: Message) -> Delivery:
        """Send a job that is hidden from other processes, and return its delivery.

        The job counts as received by this process. Raises QueueUnavailable.
        """
        content = base64.b64encode(message.body or message.encode()).decode()
        hidden = min(self._lease, LONGEST_DELAY_SECONDS)
        sent = await self._put(self._waiting, content, hidden)
        return self._hold(Held(self._waiting, sent, hidden, hidden / 3))

    async def release(self) -> int:
        """Move messages of the second queue that are visible again to the jobs' queue. Return their number.

        Each message is sent before it is deleted. So a crash may leave two copies of a message, but loses
        none. Raises QueueUnavailable.
        """
        released = 0
        while released < MOST_RELEASED:
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    messages = await self._receive(self._waiting, MOST_MESSAGES)
            except (AzureError, TimeoutError) as error:
                raise _unavailable(error) from error
            moved = [self._move(self._waiting, message) for message in messages]
            results = await asyncio.gather(*moved, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            released += len(messages)
            if len(messages) < MOST_MESSAGES:
                break
        return released

    async def receive(self, count: int) -> list[Delivery]:
        """Return the messages that are there.

        If there are none, return an empty list after a pause. The pause grows while the queue stays empty.
        """
        if monotonic() - self._looked_at > self._look:
            await self.release()
            self._looked_at = monotonic()
        try:
            async with asyncio.timeout(SEND_SECONDS):
                messages = await self._receive(self._client, min(count, MOST_MESSAGES))
        except (AzureError, TimeoutError) as error:
            raise _unavailable(error) from error
        if not messages:
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, self._longest_pause)
            return []
        self._pause = FIRST_POLL_SECONDS
        return [
            self._hold(Held(self._client, message, VISIBILITY_SECONDS, RENEW_SECONDS)) for message in messages
        ]

    async def done(self, delivery: Delivery) -> None:
        """Delete the message. Raises QueueUnavailable."""
        held = self._held.pop(delivery.receipt)
        try:
            async with held.lock:
                await self._settle(held.queue.delete_message(held.message))
        finally:
            _stop(held)

    async def later(self, delivery: Delivery, delay_ms: int) -> None:
        """Hide the message for the delay; without a delay make it visible at once.

        Raises QueueUnavailable.
        """
        held = self._held.pop(delivery.receipt)
        hidden = min(math.ceil(delay_ms / 1000), LONGEST_DELAY_SECONDS)
        try:
            async with held.lock:
                if held.queue is self._waiting and not hidden:
                    await self._move(held.queue, held.message)
                else:
                    update = held.queue.update_message(held.message, visibility_timeout=hidden)
                    await self._settle(update)
        finally:
            _stop(held)

    def leave(self, delivery: Delivery) -> None:
        """Stop renewing. The message becomes visible when its present time is over."""
        if (held := self._held.pop(delivery.receipt, None)) is not None:
            _stop(held)

    async def depth(self) -> int:
        """Return the approximate number of jobs that are queued or running. Raises QueueUnavailable."""
        return sum(await asyncio.gather(_count(self._client), _count(self._waiting)))

    async def close(self) -> None:
        """Close the clients. The messages that this process hides become visible when their time is over."""
        for held in self._held.values():
            _stop(held)
        self._held.clear()
        await self._client.close()
        await self._waiting.close()

    async def _put(self, queue: QueueClient, content: str, hidden: int) -> QueueMessage:
        keep = max(self._keep, hidden + VISIBILITY_SECONDS)
        send = partial(queue.send_message, content, visibility_timeout=hidden, time_to_live=keep)
        try:
            async with asyncio.timeout(SEND_SECONDS):
                try:
                    return await send()
                except ResourceNotFoundError:
                    await _make(queue)
                    return await send()
        except (AzureError, TimeoutError) as error:
            raise _unavailable(error) from error

    async def _move(self, queue: QueueClient, message: QueueMessage) -> None:
        """Send the message to the jobs' queue and delete it from this queue. Raises QueueUnavailable."""
        await self._put(self._client, message.content, 0)
        await self._settle(queue.delete_message(message))

    async def _receive(self, queue: QueueClient, count: int) -> list[QueueMessage]:
        """Receive messages with one request.

        By default the client requests one page for each message. Then a failure could come after some
        messages had been received.
        """
        found = queue.receive_messages(
            messages_per_page=count, max_messages=count, visibility_timeout=VISIBILITY_SECONDS
        )
        try:
            async for page in found.by_page():
                return [message async for message in page]
        except ResourceNotFoundError:
            await _make(queue)
        return []

    def _hold(self, held: Held) -> Delivery:
        message = held.message
        held.renewing = asyncio.create_task(self._renew(held), name="queue-renew")
        receipt = f"{message.id} {message.pop_receipt}"
        self._held[receipt] = held
        return Delivery(message.content.encode(), receipt)

    async def _renew(self, held: Held) -> None:
        """Renew the message until it is settled, or until another process has it."""
        while True:
            await asyncio.sleep(held.renew)
            try:
                async with asyncio.timeout(SEND_SECONDS), held.lock:
                    renewed = await held.queue.update_message(held.message, visibility_timeout=held.seconds)
                    held.message.pop_receipt = renewed.pop_receipt
            except HttpResponseError as error:
                if _code(error) in VOID_RECEIPT:
                    return
                _log.warning("a message could not be kept hidden: %s", _reason(error))
            except (AzureError, TimeoutError) as error:
                _log.warning("a message could not be kept hidden: %s", _reason(error))

    async def _settle(self, call: Awaitable[object]) -> None:
        """Run a call that settles a message. If the receipt is no longer valid, nothing is left to do."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await call
        except (AzureError, TimeoutError) as error:
            if _code(error) not in VOID_RECEIPT:
                raise _unavailable(error) from error


async def _make(queue: QueueClient) -> None:
    try:
        await queue.create_queue()
        _log.info("queue %s was made", queue.queue_name)
    except ResourceExistsError:  # another process created it in the same moment
        _log.debug("queue %s was there already", queue.queue_name)


async def _count(queue: QueueClient) -> int:
    """Return how many messages a queue has, including hidden ones. Raises QueueUnavailable."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            found = await queue.get_queue_properties()
    except ResourceNotFoundError:
        return 0  # the queue is created at its first use
    except (AzureError, TimeoutError) as error:
        raise _unavailable(error) from error
    return found.approximate_message_count or 0


def _stop(held: Held) -> None:
    if held.renewing is not None:
        held.renewing.cancel()


def _unavailable(error: Exception) -> QueueUnavailable:
    """Log the kind of an error, and return QueueUnavailable.

    The text of the error is not logged, because it may contain an address or a signature.
    """
    _log.warning("the queue refuses: %s", _reason(error))
    return QueueUnavailable()


def _code(error: Exception) -> str:
    """Return the error code of the service, or an empty text."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")


def _reason(error: Exception) -> str:
    status = getattr(error, "status_code", None)
    return " ".join(str(part) for part in (type(error).__name__, status, _code(error)) if part)
