"""What every format's endpoints do alike: start, find, follow, and a route's place at both hosts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from gateway import asking
from gateway.answers import Handler
from gateway.body import Start
from gateway.errors import CursorLost
from gateway.formats.projection import Place, Projection, projected
from gateway.gateway import Gateway
from gateway.protocol import Cursor
from gateway.record import Record
from gateway.response import CutStream
from gateway.subscription import Ending


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, as in `gateway.asgi`. `open`: following needs no function key, only the id."""

    method: str
    path: str
    handler: Handler
    open: bool = False

    @property
    def name(self) -> str:
        """The function's name on Azure Functions; the leave to ask is one handler for all paths."""
        name = self.handler.__name__
        return name if self.method != "OPTIONS" else "_".join([name, *re.findall(r"\w+", self.path)])


async def begin(gateway: Gateway, request: Request, start: Start, owner: str, *, key: str = "") -> Record:
    """Start a stream; `key` is the format's own idempotency key, the header wins. Raises as `create`."""
    record = await gateway.create(
        start,
        owner=owner,
        key=asking.idempotency_key(request) or key,
        traceparent=asking.traceparent(request),
    )
    asking.note(record)
    return record


def follow(
    gateway: Gateway,
    record: Record,
    projection: Projection,
    after: Place | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The stream as this format's frames, after a place that stands in the log (`stands`).

    Raises TooManyReaders.
    """
    gateway.parts.hub.check_room(record.id)
    ending = Ending()
    chunks = gateway.parts.relay.follow(record.id, None, ending)
    return CutStream(projected(chunks, projection, after), headers, ending)


async def stands(gateway: Gateway, record: Record, after: Place) -> bool:
    """Whether the log still has the event of a place."""
    try:
        await gateway.parts.log.read(record.id, Cursor.parse(str(after.cursor)))
    except CursorLost:
        return False
    return True
