"""A queue in memory that may refuse; what it has acknowledged may vanish all the same."""

from __future__ import annotations

from gateway.protocol.errors import QueueUnavailable
from gateway.queue.job_queue import Delivery, Message


class Mail:
    """The seam of the product's queues; `sent` are the ids that wait."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.refuses = False

    async def enqueue(self, message: Message, delay_ms: int = 0) -> None:
        if self.refuses:
            raise QueueUnavailable
        self.sent.append(message.id)

    async def forget(self, stream_id: str) -> None:
        """It keeps no places."""

    async def receive(self, count: int) -> list[Delivery]:
        taken, self.sent = self.sent[:count], self.sent[count:]
        return [Delivery(Message(name).encode(), name) for name in taken]

    async def done(self, delivery: Delivery) -> None:
        """It was taken out when it was received."""

    async def later(self, delivery: Delivery, delay_ms: int) -> None:
        self.sent.append(delivery.receipt)
