"""Properties that must hold for all data that is read from a stream, a queue or a channel."""

from __future__ import annotations

import base64
import json
import re

from gateway import protocol
from gateway.protocol import Cursor, Event, EventType, sse
from gateway.protocol.sse import Decoder
from gateway.queue.job_queue import Message as Job
from gateway.relay.block import Block
from tests.fuzz.source import Source, pieces, same

Told = tuple[list[sse.Message], str, int | None]


def decoder(data: bytes) -> None:
    """For every split, the decoder gives the messages of a reference that sees all bytes at once, within its
    limit."""
    source = Source(data)
    limit, size, at = source.byte() + 2, source.byte() % 16 + 1, source.byte()
    stream = source.rest()
    expected = reference(stream)
    for feeds in ([stream], pieces(stream, size), pieces(stream, 1), [stream[:at], b"", stream[at:]]):
        assert told(Decoder(len(stream)), feeds) == expected
    bounded = Decoder(limit)
    for feed in pieces(stream, size):
        try:
            bounded.feed(feed)
        except ValueError:
            break
        assert held(bounded) <= limit


def told(decoder: Decoder, feeds: list[bytes]) -> Told:
    return [m for feed in feeds for m in decoder.feed(feed)], decoder.last_id, decoder.retry_ms


def held(decoder: Decoder) -> int:
    """Return the size of an unfinished event, in characters and bytes. An id of an earlier event does not
    count."""
    given = "" if decoder._id in (None, decoder.last_id) else decoder._id or ""
    lines = [decoder._type, given, *decoder._data]
    return len(decoder._tail) + sum(len(line) for line in lines)


def reference(stream: bytes) -> Told:
    """Apply the standard's rules (HTML, 9.2.6) word for word, with the whole stream in memory."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    messages: list[sse.Message] = []
    last_id, retry_ms = "", None
    id_buffer, kind, data = "", "", ""
    for line in re.split(r"\r\n|\n|\r", text)[:-1]:
        if line == "":
            last_id = id_buffer
            if data:
                messages.append(sse.Message(last_id, kind or "message", data.removesuffix("\n")))
            kind = data = ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            id_buffer = value
        elif field == "retry" and re.fullmatch("[0-9]+", value):
            retry_ms = min(int(value), 999_999_999) if len(value.lstrip("0")) < 4000 else 999_999_999
    return messages, last_id, retry_ms


def frames(data: bytes) -> None:
    """Events convert to frames and back, at every split; a frame can be cut off without parsing."""
    source = Source(data)
    log = b""
    events: list[Event] = []
    ids: list[str] = []
    while not source.empty and len(events) < 8:
        kind = list(EventType)[source.byte() % len(EventType)]
        tag = f"{source.byte():02x}{source.byte():02x}"
        event = Event(kind, source.json())
        ids.append(f"{len(log)}-{tag}")
        frame = sse.encode(event, len(log), tag)
        assert sse.is_terminal(frame) == (kind in protocol.TERMINAL_EVENTS)
        assert sse.frame_kind(frame) == (b"event: " + kind.encode() if kind else b"")
        assert sse.split_frames(frame) == [frame]
        events.append(event)
        log += frame
    assert b"".join(sse.split_frames(log)) == log
    assert len(sse.split_frames(log)) == len(events)
    splits = range(len(log) + 1) if len(log) < 100 else range(0, len(log), len(log) // 7)
    for at in splits:
        found = told(Decoder(), [log[:at], log[at:]])[0]
        assert [m.id for m in found] == ids
        assert [m.event().type for m in found] == [event.type for event in events]
        assert same([m.event().data for m in found], [event.data for event in events])


def message(data: bytes) -> None:
    """A queue message is parsed or refused with ValueError, plain and in base64 equally; it round-trips."""
    try:
        job = Job.decode(data)
    except ValueError:
        return
    assert Job.decode(job.encode()) == job
    assert Job.decode(job.body) == job
    assert Job.decode(base64.b64encode(job.body)) == job
    assert json.loads(job.body)["id"] == job.id


def block(data: bytes) -> None:
    """A published block is exactly `<before> <last> <status> <ms>` and frames; else it is refused with
    ValueError."""
    try:
        found = Block.parse(data)
    except ValueError:
        return
    head, _, frames = data.partition(b"\n")
    status = head.split(b" ")[2].decode("latin-1")
    assert f"{found.before} {found.last} {status} {found.at_ms}".encode("latin-1") == head
    assert found.frames == frames
    assert found.final == (status in protocol.ENDED)
    assert str(Cursor.parse(found.last)) == found.last
    assert str(Cursor.parse(found.before)) == found.before
