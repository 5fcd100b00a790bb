"""HTTP for producers: open a stream, and send its events as lines."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway import protocol
from gateway.producer.appending import Appending, Reading
from gateway.producer.course import Course
from gateway.protocol import Status
from gateway.protocol.errors import Invalid, StoreUnavailable, Unauthorized
from gateway.store.record import Record
from gateway.streams import write_tokens
from gateway.streams.producer_asked import Asked
from gateway.streams.service import REFUSED_AFTER_SECONDS, Gateway
from gateway.streams.start import LINES, read_in_time
from gateway.web import request_head
from gateway.web.answers import answered, json_answer
from gateway.web.where import base
from gateway.writing.matcher import Published

_POSITION = re.compile(r"[0-9]{1,10}")


async def opened(gateway: Gateway, request: Request, asked: Asked, owner: str) -> Response:
    """POST /stream for a producer: open the stream, and give the caller its claim."""
    opening, key = gateway.parts.opening, request_head.idempotency_key(request)
    record = await opening.open(asked, owner=owner, key=key, traceparent=request_head.traceparent(request))
    request_head.note(record)
    token = protocol.new_token()
    claim = await opening.take(record.id, token)
    if isinstance(claim, str):
        ended, _ = await opening.log.record(record.id)
        if ended is None or not ended.ended:
            raise StoreUnavailable
        record = ended
    else:
        record = claim.record
    where = f"/stream/{record.id}"
    body = {
        "id": record.id,
        "status": record.status.value,
        "chain": record.chain,
        "stream": base(request) + where,
        "created_at": protocol.iso(record.created_ms),
        "write_token": write_tokens.issue(record.write_key, token),
        "position": 0,
        "stages": _stages(record),
    }
    return json_answer(body, 201, {"location": where})


@answered("/stream/{id}/events")
async def produce(gateway: Gateway, request: Request) -> Response:
    """POST /stream/{id}/events: accept lines of a producer.

    Only a request with the write token of the stream may send lines.
    """
    stream_id, given = request.path_params["id"], request.headers.getlist("x-write-token")
    token = given[0] if len(given) == 1 else ""
    if not protocol.is_stream_id(stream_id) or not write_tokens.claim_in(token):
        raise Unauthorized
    appending = Appending(gateway.parts.log, gateway.settings, _reading(gateway))
    async with _same_time():
        await appending.held(stream_id, token)
    position = _position(request)
    body = await read_in_time(request, gateway.bounds, LINES)
    counted, status = await appending.add(stream_id, token, position, body)
    return json_answer({"position": counted, "status": status})


def _stages(record: Record) -> list[dict[str, Any]]:
    course = Course(record, Published())
    return [
        {
            "name": stage,
            "state": "finished" if course.is_finished(stage) or record.status is Status.DONE else "open",
            "result": course.result(stage) if course.is_finished(stage) else None,
        }
        for stage in record.stages
    ]


def _position(request: Request) -> int:
    given = request.query_params.getlist("position")
    if len(given) != 1 or not _POSITION.fullmatch(given[0]):
        raise Invalid("position", "must be the number of lines sent before with this token, once")
    return int(given[0])


@asynccontextmanager
async def _same_time() -> AsyncIterator[None]:
    """Delay each refusal to a fixed time, so that the time does not show whether the stream exists."""
    loop = asyncio.get_running_loop()
    refusing = loop.create_future()
    timer = loop.call_later(REFUSED_AFTER_SECONDS, refusing.set_result, None)
    try:
        yield
    except Unauthorized:
        await refusing
        raise
    finally:
        timer.cancel()


def _reading(gateway: Gateway) -> Reading:
    @asynccontextmanager
    async def reading(record: Record) -> AsyncIterator[None]:
        """Hold room for reading the stream's log.

        Raises TooManyReaders when there is no room for 10 s.
        """
        share = await gateway.room_for(record)
        try:
            async with gateway.folding:
                yield
        finally:
            share.keep(0)

    return reading
