"""GET /threads: list the caller's threads. The thread with the newest stream comes first."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway import protocol
from gateway.protocol.errors import Invalid
from gateway.store.threads import State, quoted
from gateway.streams.service import Gateway
from gateway.web import request_head
from gateway.web.answers import answered, json_answer
from gateway.web.openapi.threads import MOST_ROWS, ROWS

_NEXT = re.compile(r"(?P<at>[0-9]{1,15})-(?P<name>[!-~]{1,2400})", re.ASCII)


@answered("/threads")
async def threads(gateway: Gateway, request: Request) -> Response:
    """GET /threads: at most `limit` threads, beginning after the cursor `next`."""
    owner = await request_head.owner(gateway, request)
    request_head.check_apart(gateway)
    most, before = _limit(request), _before(request)
    store = gateway.parts.threads
    listed = await store.listed(owner, before, most + 1)
    states = await store.looks(owner, [name for _, name in listed[:most]]) if listed else []
    pairs = zip(listed[:most], states, strict=True)
    rows = await asyncio.gather(*(_row(gateway, owner, name, state) for (_, name), state in pairs))
    told: dict[str, Any] = {"threads": [row for row in rows if row is not None], "next": None}
    if len(listed) > most:
        at_ms, name = listed[most - 1]
        told["next"] = f"{at_ms}-{quoted(name)}"
    return json_answer(told)


async def _row(gateway: Gateway, owner: str, name: str, state: State) -> dict[str, Any] | None:
    """Return the row of a thread.

    Returns None for a thread that was deleted or has expired since the list was read.
    """
    if not state.created_ms:
        return None
    return {
        "thread": name,
        "status": await gateway.parts.turns.status(owner, state),
        "chain": state.chain,
        "created_at": protocol.iso(state.created_ms),
        "updated_at": protocol.iso(state.updated_ms),
        "stream": state.newest or None,
    }


def _limit(request: Request) -> int:
    given = request.query_params.get("limit", str(ROWS))
    if not re.fullmatch(r"[0-9]{1,4}", given, re.ASCII) or not 1 <= int(given) <= MOST_ROWS:
        raise Invalid("limit", f"must be a whole number from 1 to {MOST_ROWS}")
    return int(given)


def _before(request: Request) -> tuple[int, str] | None:
    """Return the thread after which the page begins, as a time in ms and a quoted name. Raises Invalid."""
    given = request.query_params.get("next")
    if given is None:
        return None
    found = _NEXT.fullmatch(given)
    if found is None:
        raise Invalid("next", "must be the `next` of a page before")
    return int(found["at"]), found["name"]
