"""The queue on Azure: Storage Queue, through Microsoft's own client.

Messages are base64, as the portal and the platform's trigger expect them; the queue is made at first use.
A worker that is not the platform's hides a message for a minute and renews that while it works; the lease
in Redis is what notices a dead worker sooner. Whoever sends a job and runs it at once hides its message for a
lease, and so has no need to receive it.

Messages that wait hidden stand in a queue of their own, `<name>-held`: the platform scales the jobs' trigger
by all messages of its queue, hidden ones too, and would start an instance for every twelve jobs that run
elsewhere. No trigger looks at that queue. `release` puts what has become visible there into the jobs' queue.
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

HELD = "-held"  # what the name of the second queue ends with
SEND_SECONDS = 10.0  # for one call and its tries together
VISIBILITY_SECONDS = 60
RENEW_SECONDS = VISIBILITY_SECONDS / 3
FIRST_POLL_SECONDS = 0.1
COUNT_SECONDS = 5.0
MOST_MESSAGES = 32  # of one receive: the service's own bound
MOST_RELEASED = 1024  # of one release: what is left comes with the next
LONGEST_DELAY_SECONDS = 7 * 86400  # likewise
# The message was handed to another, or is gone.
VOID_RECEIPT = ("PopReceiptMismatch", "MessageNotFound", "QueueNotFound")
_log = logging.getLogger("holdfast.queue")


@dataclass(slots=True)
class Held:
    """A message that this process hides from others, for `seconds` and again after each `renew`.

    The lock: a receipt is void once it was renewed.
    """

    queue: QueueClient  # where it stands
    message: QueueMessage
    seconds: int
    renew: float
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    renewing: asyncio.Task[None] | None = None


class AzureQueue:
    """A JobQueue on two queues of Storage: for workers, and `waiting`, what is hidden until later.

    `poll`, `keep` and `lease` in seconds: the longest pause between two looks at an idle queue, how long a
    message is kept, and how long one is hidden that is run by whoever sends it.
    """

    def __init__(
        self, client: QueueClient, waiting: QueueClient, *, poll: float, keep: float, lease: float
    ) -> None:
        self._client = client
        self._waiting = waiting
        self._look = lease / 3  # how often `receive` releases
        self._looked_at = -math.inf
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
        """Returns when the service has stored it. Raises QueueUnavailable.

        With a delay it waits in the second queue, and comes at the first release after it.
        """
        content = base64.b64encode(message.body or message.encode()).decode()
        hidden = min(math.ceil(delay_ms / 1000), LONGEST_DELAY_SECONDS)
        await self._put(self._waiting if hidden else self._client, content, hidden)

    async def enqueue_held(self, message: Message) -> Delivery:
        """Hidden from all others, and as good as received: the answer names it. Raises QueueUnavailable."""
        content = base64.b64encode(message.body or message.encode()).decode()
        hidden = min(self._lease, LONGEST_DELAY_SECONDS)
        sent = await self._put(self._waiting, content, hidden)
        return self._hold(Held(self._waiting, sent, hidden, hidden / 3))

    async def release(self) -> int:
        """Put what is hidden no longer in the second queue where workers look; answers how much it was.

        A message is sent before it is deleted: at worst it is there twice. Raises QueueUnavailable.
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
        """What is there; nothing is answered after a pause, which grows while nothing comes."""
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
        """Delete it. Raises QueueUnavailable."""
        held = self._held.pop(delivery.receipt)
        try:
            async with held.lock:
                await self._settle(held.queue.delete_message(held.message))
        finally:
            _stop(held)

    async def later(self, delivery: Delivery, delay_ms: int) -> None:
        """Hide it for the delay, then anybody may have it; without one at once. Raises QueueUnavailable."""
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
        """Hide it no longer than it is: it becomes visible by itself."""
        if (held := self._held.pop(delivery.receipt, None)) is not None:
            _stop(held)

    async def depth(self) -> int:
        """How many jobs are queued or running, about. Raises QueueUnavailable."""
        return sum(await asyncio.gather(_count(self._client), _count(self._waiting)))

    async def close(self) -> None:
        """Let go; what is held becomes visible within a minute."""
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
        """Into the jobs' queue, for anybody. Raises QueueUnavailable."""
        await self._put(self._client, message.content, 0)
        await self._settle(queue.delete_message(message))

    async def _receive(self, queue: QueueClient, count: int) -> list[QueueMessage]:
        """One request: a page for each message, as is the client's default, might fail half-way."""
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
        """Until it is settled, or another has it."""
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
        """With a receipt that is void by now there is nothing left to settle."""
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
    except ResourceExistsError:  # by another process, at this moment
        _log.debug("queue %s was there already", queue.queue_name)


async def _count(queue: QueueClient) -> int:
    """How many messages a queue has, hidden ones too. Raises QueueUnavailable."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            found = await queue.get_queue_properties()
    except ResourceNotFoundError:
        return 0  # it is made at first use
    except (AzureError, TimeoutError) as error:
        raise _unavailable(error) from error
    return found.approximate_message_count or 0


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
