"""GET /streams: the caller's own streams, as one page of a list or as a feed of their changes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.protocol import Cursor
from gateway.protocol.errors import NotAcceptable, StoreUnavailable, TooManyReaders
from gateway.relay.reader import Ending
from gateway.store.feeds import Feeds
from gateway.streams import rows
from gateway.streams.service import Gateway
from gateway.web import request_head
from gateway.web.answers import JSON, answered, json_answer
from gateway.web.event_stream import EventStream, sent_away
from gateway.web.negotiate import negotiate

EVENT_STREAM = "text/event-stream"


@answered("/streams")
async def streams(gateway: Gateway, request: Request) -> Response:
    """GET /streams: a page of the list.

    With `Accept: text/event-stream` the answer is the feed, after the cursor in `Last-Event-ID`.
    """
    owner = await request_head.owner(gateway, request)
    request_head.check_apart(gateway)
    preferred = negotiate(request.headers.getlist("accept"), (JSON, EVENT_STREAM), JSON)
    if preferred is None:
        raise NotAcceptable
    # An invalid cursor is refused, even if a page of the list is requested.
    after = request_head.cursor(request)
    if preferred == EVENT_STREAM:
        return _feed(gateway, after, owner)
    keys = frozenset(gateway.settings.list_metadata.split())
    asked = rows.filter_of(request.query_params.multi_items(), keys)
    return json_answer(await rows.page(gateway, owner, asked))


def _feed(gateway: Gateway, after: Cursor | None, owner: str) -> Response:
    feed_id, ending = Feeds.id_of(owner), Ending()
    try:
        gateway.parts.hub.check_room(feed_id, owner)
    except (StoreUnavailable, TooManyReaders) as error:
        return EventStream(sent_away(error))
    return EventStream(gateway.parts.relay.follow(feed_id, after, ending, owner), None, ending)
