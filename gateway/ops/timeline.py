"""One stream for an operator: its state, and its events by id, type, size and writer.

Consecutive text events are one entry, because showing each of them would add nothing. Invariant: without
`content` the result contains no content of users or models: no text, no input, no metadata, no arguments of a
tool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway import protocol
from gateway.protocol import Event, EventType, sse
from gateway.protocol.errors import CursorLost
from gateway.store.log import Log
from gateway.store.record import Record

# The fields of an event's data that may be shown. The other fields are content, or may quote it.
_TOLD: Mapping[EventType, tuple[str, ...]] = {
    EventType.MESSAGE: ("stage", "deployment"),
    EventType.START: ("chain", "created_at"),
    EventType.STAGE: ("name", "run", "state"),
    EventType.TOOL: ("name", "stage", "state"),
    EventType.CUSTOM: ("name", "stage"),
    EventType.NESTED: ("within", "stage"),
    EventType.REFUSAL: ("stage",),
    EventType.CITATIONS: ("stage",),
    EventType.GRAPH: ("kind", "stage", "run"),
    EventType.RESET: ("attempt", "stage", "discard_after", "reason"),
    EventType.DONE: ("finish_reason", "usage", "usage_lost", "attempts", "duration_ms"),
    EventType.FAILED: ("code", "retryable"),
}


@dataclass(slots=True)
class Entry:
    """One event, or consecutive text events.

    `bytes`: their size in the log. `writer`: the tag of the claim that wrote them.
    """

    id: str
    last_id: str
    type: str
    events: int
    bytes: int
    told: dict[str, Any]
    content: Any = None

    @property
    def writer(self) -> str:
        """The four hexadecimal digits of the claim's token."""
        return self.id.partition("-")[2]

    def document(self) -> dict[str, Any]:
        """Return the entry for JSON."""
        whole = {
            "id": self.id,
            "last_id": self.last_id,
            "type": self.type,
            "events": self.events,
            "bytes": self.bytes,
            "writer": self.writer,
            **self.told,
        }
        return whole if self.content is None else whole | {"content": self.content}


@dataclass(frozen=True, slots=True)
class Story:
    """The record of a stream with its lease, log length and entries.

    `lease_left_ms` is in milliseconds from now; None: no worker has a lease.
    """

    record: Record
    lease_left_ms: int | None
    log_bytes: int
    entries: list[Entry]

    def state(self, *, content: bool) -> dict[str, Any]:
        """Return the fields of the record by name."""
        record = self.record
        state = {
            "id": record.id,
            "status": record.state,
            "owner": record.owner,
            "chain": record.chain,
            "attempt": record.attempt,
            "failures": record.failures,
            "lease_left_ms": self.lease_left_ms,
            "confirmed": record.confirmed,
            "created_at": protocol.iso(record.created_ms),
            "started_at": record.started_ms and protocol.iso(record.started_ms),
            "ended_at": record.ended_ms and protocol.iso(record.ended_ms),
            "log_bytes": self.log_bytes,
            "last_event_id": record.last_id,
            "code": (record.error or {}).get("code"),
            "usage": record.usage,
            "trace": record.trace[3:35],
            "version": record.version,
        }
        if content:
            given = {"input": record.input, "params": record.params, "metadata": record.metadata}
            return state | given
        return state


async def story_of(log: Log, stream_id: str, *, content: bool = False) -> Story | None:
    """Return the stream, or None if it does not exist. Raises StoreUnavailable."""
    record, length = await log.record(stream_id)
    if record is None:
        return None
    [head] = await log.heads([stream_id])
    return Story(record, head.lease_left_ms, length, await _entries(log, stream_id, content))


async def _entries(log: Log, stream_id: str, content: bool) -> list[Entry]:
    entries: list[Entry] = []
    after, at_end = None, False
    while not at_end:
        try:
            piece = await log.read(stream_id, after)
        except CursorLost:  # the log lost its end or expired during this read
            break
        for frame in sse.split_frames(piece.frames):
            [message] = sse.Decoder().feed(frame)
            _add(entries, message.id, message.event(), len(frame), content)
        after, at_end = piece.last, piece.at_end or piece.last is None
    return entries


def _add(entries: list[Entry], event_id: str, event: Event, size: int, content: bool) -> None:
    told = {name: event.data[name] for name in _TOLD.get(event.type, ()) if name in event.data}
    said = None
    if content:
        said = event.data["delta_content"] if event.type is EventType.MESSAGE else event.data
    new = Entry(event_id, event_id, event.type or "text", 1, size, told, said)
    last = entries[-1] if entries else None
    if last is None or (last.type, last.writer, last.told) != ("text", new.writer, told):
        entries.append(new)
        return
    last.last_id, last.events, last.bytes = event_id, last.events + 1, last.bytes + size
    if content:
        last.content += said
