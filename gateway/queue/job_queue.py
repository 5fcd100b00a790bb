"""The interfaces of a queue of jobs.

A message contains the stream's id, the version of the release, and the trace context. A message is delivered
at least once. If two workers receive it, the claim decides which of them runs the job.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import orjson

from gateway.protocol import VERSION, sse


@dataclass(frozen=True, slots=True)
class Message:
    """The content of a message in the queue."""

    id: str
    traceparent: str = ""
    version: int = VERSION
    body: bytes = field(
        default=b"", repr=False, compare=False
    )  # `body`: the received bytes; another release may use more fields

    def encode(self) -> bytes:
        """Return the message as one line of JSON."""
        return sse.dumps({"v": self.version, "id": self.id, "traceparent": self.traceparent})

    @classmethod
    def decode(cls, raw: bytes) -> Message:
        """Read a message, as plain JSON or in base64. Raises ValueError for any other content."""
        try:
            value = orjson.loads(raw)  # JSON with too many levels raises ValueError too
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
    """Delivers jobs to workers, each at least once. All methods but `leave` raise QueueUnavailable."""

    async def receive(self, count: int) -> list[Delivery]:
        """Return up to `count` deliveries. Wait a limited time for the first one."""

    async def done(self, delivery: Delivery) -> None:
        """Settle this delivery, so that the message is not delivered again."""

    async def later(self, delivery: Delivery, delay_ms: int) -> None:
        """Deliver the message again, to any worker, after the delay. The queue may shorten a long delay."""

    def leave(self, delivery: Delivery) -> None:
        """Release a delivery that cannot be settled now.

        The queue delivers it again when its time is over.
        """


class Admission(Protocol):
    """Limits how many jobs are queued or running. Both methods raise QueueUnavailable."""

    async def reserve(self, stream_id: str, most: int, others: int) -> bool:
        """Reserve a place for a job before it is enqueued.

        Return False when `most` jobs are queued or running.

        Also return False if the caller already has `others` jobs and no more than `others` places are left.
        So a caller that floods the queue leaves places for other callers.
        """

    async def depth(self) -> int:
        """Return how many jobs are queued or running."""


class JobQueue(Sender, Receiver, Admission, Protocol):
    """A complete queue, for the code that opens and closes it.

    Other code uses only the interface that it needs.
    """

    async def enqueue(self, message: Message, delay_ms: int = 0) -> None:
        """Send a job, after a delay if the queue supports delays.

        Return when the queue has acknowledged the message. A queue that cannot hide a message delivers it at
        once. Then the claim decides whether the job runs.
        """

    async def close(self) -> None:
        """Close the connections that only the queue uses."""


@runtime_checkable
class Holding(Protocol):
    """Additional methods of a queue whose workers poll for jobs only from time to time (Azure Storage).

    A process that sends a job may hide the message and run the job itself, so the job need not wait for the
    next poll. Both methods raise QueueUnavailable.
    """

    async def enqueue_held(self, message: Message) -> Delivery:
        """Send a job whose message is hidden from all others. Return when the queue has acknowledged it.

        The message stays hidden until the delivery is settled or left. If this process dies, the message
        becomes visible within a lease. Other workers get it after the next `release`.
        """

    async def release(self) -> int:
        """Move messages that are no longer hidden to the queue that workers read. Return their number."""
