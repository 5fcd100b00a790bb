"""A queue in memory that may refuse messages. It may also lose messages that it has acknowledged."""

from __future__ import annotations

from gateway.protocol.errors import QueueUnavailable
from gateway.queue.job_queue import Delivery, Message


class Mail:
    """The interface of the product's queues; `sent` has the ids of the waiting messages."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.refuses = False

    async def enqueue(self, message: Message, delay_ms: int = 0) -> None:
        if self.refuses:
            raise QueueUnavailable
        self.sent.append(message.id)

    async def forget(self, stream_id: str) -> None:
        """Do nothing: this queue stores no places."""

    async def receive(self, count: int) -> list[Delivery]:
        taken, self.sent = self.sent[:count], self.sent[count:]
        return [Delivery(Message(name).encode(), name) for name in taken]

    async def done(self, delivery: Delivery) -> None:
        """Do nothing: the message was removed when it was received."""

    async def later(self, delivery: Delivery, delay_ms: int) -> None:
        self.sent.append(delivery.receipt)
