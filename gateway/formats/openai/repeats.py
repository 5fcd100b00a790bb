"""Requests that a client repeats by itself: they join the run that the first one has started.

OpenAI's clients repeat a POST whose answer was lost, without an Idempotency-Key. They count the repetitions
in a header. So the newest run of a caller's body is known by the body for a while. A body that comes again
without a count is asked anew, and so is one whose answer was an error that the client has been told.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from starlette.requests import Request

from gateway.protocol.errors import StreamGone, StreamNotFound
from gateway.store.record import Record
from gateway.streams.service import Gateway
from gateway.web import request_head

KIND = "openai repeat"
COUNT = "x-stainless-retry-count"
JOINED_SECONDS = 900  # behind the run's start: the clients wait ten minutes for an answer


def digest_of(request: Request, value: Any) -> str:
    """What a repetition of this request is known by; empty where the client counts none, or sends a key."""
    if COUNT not in request.headers or "idempotency-key" in request.headers:
        return ""
    asked = json.dumps([request.url.path, value], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()


async def joined(gateway: Gateway, request: Request, owner: str, digest: str) -> Record | None:
    """The run that this request repeats the start of, if it is one."""
    count = request.headers.get(COUNT, "")
    if not digest or not count.strip("0").isdigit():
        return None
    known = await gateway.parts.conversations.look(KIND, owner, digest)
    if not known.stream:
        return None
    try:
        record = await gateway.find(known.stream, owner)
    except (StreamNotFound, StreamGone):
        return None
    if await gateway.parts.log.now_ms() - record.created_ms > JOINED_SECONDS * 1000:
        return None
    request_head.note(record)
    return record


async def note(gateway: Gateway, owner: str, digest: str, record: Record) -> None:
    """A run has begun; where another one of the same body begins at this moment, either may be joined."""
    if digest:
        conversations = gateway.parts.conversations
        before = await conversations.look(KIND, owner, digest)
        await conversations.turn(KIND, owner, digest, before, record.id)


async def forget(gateway: Gateway, owner: str, digest: str) -> None:
    """The client has been told how it ended: when it asks again, it wants another run."""
    if digest:
        await gateway.parts.conversations.drop(owner, [(KIND, digest)])
