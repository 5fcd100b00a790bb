"""The queue's seam. A message holds the stream's id, the release's version and the trace context, no more.

Delivery is at least once; a claim decides.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import orjson

from gateway.protocol import VERSION, sse


@dataclass(frozen=True, slots=True)
class Message:
    """What the queue carries."""

    id: str
    traceparent: str = ""
    version: int = VERSION
    body: bytes = field(default=b"", repr=False, compare=False)  # as it came; another release's may say more

    def encode(self) -> bytes:
        """One line of JSON."""
        return sse.dumps({"v": self.version, "id": self.id, "traceparent": self.traceparent})

    @classmethod
    def decode(cls, raw: bytes) -> Message:
        """Read a message, plain or in base64. Raises ValueError for anything else."""
        try:
            value = orjson.loads(raw)  # its ValueError covers a nesting too deep as well
        except ValueError:
            raw = base64.b64decode(raw, validate=True)
            value = orjson.loads(raw)
        match value:
            case {"v": int(version), "id": str(stream_id)} if version is not True and version is not False:
                trace = value.get("traceparent")
                return cls(stream_id, trace if isinstance(trace, str) else "", version, raw)
        raise ValueError("not a job message")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message in a worker's hands, and the receipt that settles it."""

    body: bytes
    receipt: str


class Sender(Protocol):
    """Takes jobs."""

    async def enqueue(self, message: Message) -> None:
        """Returns when the queue has acknowledged it. Raises QueueUnavailable."""

    async def forget(self, stream_id: str) -> None:
        """Its place is free: it was not enqueued, or its stream has ended. Raises QueueUnavailable."""


class JobQueue(Sender, Protocol):
    """Carries jobs from the web to the workers, at least once."""

    async def reserve(self, stream_id: str, most: int, others: int) -> bool:
        """A place for a job about to be enqueued. False when `most` jobs are queued or running.

        Also false for a caller whose `others` are as many as there are places left: whoever floods the queue
        leaves room for the rest. Raises QueueUnavailable.
        """

    async def enqueue(self, message: Message, delay_ms: int = 0) -> None:
        """Returns when the queue has acknowledged it. Raises QueueUnavailable.

        The delay is a wish: a queue that cannot hide a message delivers it at once, and the claim decides.
        """

    async def receive(self, count: int) -> list[Delivery]:
        """Up to `count` deliveries; waits a bounded time for the first. Raises QueueUnavailable."""

    async def done(self, delivery: Delivery) -> None:
        """This delivery is settled and not delivered again. Raises QueueUnavailable."""

    async def later(self, delivery: Delivery, delay_ms: int) -> None:
        """Deliver it again, to anybody, after the delay, or sooner if it is long. Raises QueueUnavailable."""

    def leave(self, delivery: Delivery) -> None:
        """Nobody can settle it now: it is delivered again when its time is up."""

    async def depth(self) -> int:
        """How many jobs are queued or running. Raises QueueUnavailable."""

    async def close(self) -> None:
        """Let go of what belongs to the queue alone."""


@runtime_checkable
class Holding(JobQueue, Protocol):
    """A queue whose workers look for jobs from time to time: who sends one may keep it, and need not wait."""

    async def enqueue_held(self, message: Message) -> Delivery:
        """Returns when the queue has acknowledged it, hidden from all others. Raises QueueUnavailable.

        It stays hidden until it is settled or left; when this process dies it becomes visible within a lease,
        and others get it at the next `release`.
        """

    async def release(self) -> int:
        """Put messages that are hidden no longer where workers look; how many. Raises QueueUnavailable."""
