"""What a queue of jobs does. A message holds the stream's id, the release's version and the trace context.

A message is delivered at least once. When two workers get it, the claim decides which of them runs the job.
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
    body: bytes = field(
        default=b"", repr=False, compare=False
    )  # as it came: another release may say more in it

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
    """A message that a worker has received, and the receipt with which it is settled."""

    body: bytes
    receipt: str


class Sender(Protocol):
    """Sends jobs to workers. Both methods raise QueueUnavailable."""

    async def enqueue(self, message: Message) -> None:
        """Send a job. Returns when the queue has acknowledged the message."""

    async def forget(self, stream_id: str) -> None:
        """Free the place of a job that was not enqueued, or whose stream has ended."""


class Receiver(Protocol):
    """Gives jobs to workers, each at least once. All methods but `leave` raise QueueUnavailable."""

    async def receive(self, count: int) -> list[Delivery]:
        """Up to `count` deliveries. Waits a bounded time for the first."""

    async def done(self, delivery: Delivery) -> None:
        """Settle this delivery: it is not delivered again."""

    async def later(self, delivery: Delivery, delay_ms: int) -> None:
        """Deliver it again, to any worker, after the delay. A long delay may be cut short."""

    def leave(self, delivery: Delivery) -> None:
        """Let go of a delivery that cannot be settled now. It is delivered again when its time is up."""


class Admission(Protocol):
    """Bounds how many jobs are queued or running. Both methods raise QueueUnavailable."""

    async def reserve(self, stream_id: str, most: int, others: int) -> bool:
        """Take a place for a job that is about to be enqueued. False when `most` jobs are queued or running.

        Also False for a caller that has `others` jobs already, when only as many places are left: a caller
        that floods the queue leaves room for the others.
        """

    async def depth(self) -> int:
        """How many jobs are queued or running."""


class JobQueue(Sender, Receiver, Admission, Protocol):
    """A queue as a whole, for whoever opens and closes it. All others take the part that they need."""

    async def enqueue(self, message: Message, delay_ms: int = 0) -> None:
        """Send a job, if the queue can, after a delay. Returns when the queue has acknowledged the message.

        A queue that cannot hide a message delivers it at once, and the claim decides.
        """

    async def close(self) -> None:
        """Close what belongs to the queue alone."""


@runtime_checkable
class Holding(Protocol):
    """What a queue has as well whose workers look for jobs only from time to time (Azure Storage).

    A process that sends a job may hold its message and run the job itself, without waiting for that look.
    Both methods raise QueueUnavailable.
    """

    async def enqueue_held(self, message: Message) -> Delivery:
        """Send a job whose message is hidden from all others. Returns when the queue has acknowledged it.

        The message stays hidden until it is settled or left. When this process dies it becomes visible within
        a lease, and other workers get it after the next `release`.
        """

    async def release(self) -> int:
        """Put messages that are not hidden any more where workers look. Answers how many."""
