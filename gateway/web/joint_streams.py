"""GET and POST /streams/events: follow several of the caller's streams on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.protocol import Cursor, is_stream_id
from gateway.protocol.errors import Invalid, Malformed, NotAcceptable
from gateway.relay import joint
from gateway.relay.reader import Ending
from gateway.streams.service import Gateway
from gateway.streams.start import read_json
from gateway.web import request_head
from gateway.web.answers import answered
from gateway.web.event_stream import HEADERS, EventStream
from gateway.web.negotiate import negotiate

EVENT_STREAM = "text/event-stream"
# Maps the id of each stream to the event after which to begin, or to None.
Asked = dict[str, Cursor | None]


@answered("/streams/events")
async def follow_many(gateway: Gateway, request: Request) -> Response:
    """GET: the query has one parameter `id` for each stream."""
    owner = await _owner(gateway, request)
    asked = _checked(dict.fromkeys(request.query_params.getlist("id")), "id")
    return await _followed(gateway, request, owner, asked)


@answered("/streams/events")
async def follow_many_by_body(gateway: Gateway, request: Request) -> Response:
    """POST: the body has `streams`, a list of objects with an `id` and optionally a cursor."""
    owner = await _owner(gateway, request)
    asked = await read_json(request, gateway.bounds, _of_body, owner)
    return await _followed(gateway, request, owner, asked)


async def _owner(gateway: Gateway, request: Request) -> str:
    owner = await request_head.owner(gateway, request)
    if negotiate(request.headers.getlist("accept"), (EVENT_STREAM,), EVENT_STREAM) is None:
        raise NotAcceptable
    return owner


async def _followed(gateway: Gateway, request: Request, owner: str, asked: Asked) -> Response:
    positions = {one: cursor for one, cursor in asked.items() if cursor is not None}
    positions |= _position(request, list(asked))
    records = await asyncio.gather(*(gateway.find(one, owner) for one in asked))
    open_ones = [one for one in records if not one.ended or str(positions.get(one.id)) != one.last_id]
    if not open_ones:
        return Response(status_code=204, headers=HEADERS)  # 204 makes EventSource stop
    for record in open_ones:
        gateway.parts.hub.check_room(record.id, record.owner)
    ending = Ending()
    ids = [record.id for record in open_ones]
    # `positions` also contains streams that have ended, so that the joint position names the place in every
    # stream.
    chunks = joint.follow(gateway.parts.relay, ids, positions, ending, owner)
    return EventStream(chunks, None, ending)


def _of_body(value: Any) -> Asked:
    streams = value.get("streams") if isinstance(value, dict) else None
    if not isinstance(streams, list) or not 1 <= len(streams) <= joint.MOST_STREAMS:
        raise Invalid("streams", f"must be a list of 1 to {joint.MOST_STREAMS} streams")
    if not all(isinstance(one, Mapping) for one in streams):
        raise Invalid("streams", "must be a list of objects, each with an id")
    asked: Asked = {}
    for number, one in enumerate(streams):
        given = one.get("last_event_id")
        if not isinstance(one.get("id"), str):
            raise Invalid(f"streams.{number}.id", "must be a stream's id")
        if given is not None and not isinstance(given, str):
            raise Invalid(f"streams.{number}.last_event_id", "must be an event's id")
        try:
            asked[one["id"]] = None if given in (None, "", "0") else Cursor.parse(given)
        except ValueError:
            raise Invalid(f"streams.{number}.last_event_id", "is not an event id of this gateway") from None
    return _checked(asked, "streams")


def _checked(asked: Asked, name: str) -> Asked:
    if not 1 <= len(asked) <= joint.MOST_STREAMS:
        raise Invalid(name, f"must name 1 to {joint.MOST_STREAMS} streams")
    if not all(map(is_stream_id, asked)):
        raise Invalid(name, "must be ids of streams")
    return asked


def _position(request: Request, stream_ids: list[str]) -> joint.Positions:
    """Return the joint position in `Last-Event-ID`. The header wins over the query.

    Raises Malformed.
    """
    for given in (request.headers.getlist("last-event-id"), request.query_params.getlist("last_event_id")):
        if len(given) > 1:
            raise Malformed("Last-Event-ID was given twice")
        if given and given[0] not in ("", "0"):
            try:
                return joint.read(given[0], stream_ids)
            except ValueError:
                raise Malformed("Last-Event-ID is not a position of this gateway") from None
    return {}
