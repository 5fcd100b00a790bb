"""LangGraph's search for threads by metadata, status and ids. Threads with the newest stream come first.

One request searches only the caller's newest 500 threads. A thread's metadata are the metadata that the
client has sent, and the graph of the thread's newest run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.base.serving import Route
from gateway.formats.langgraph.state import metadata_of, told_of
from gateway.formats.langgraph.threads import Thread, name_of, refused, whole_number
from gateway.protocol.errors import Invalid
from gateway.store.threads import State, quoted
from gateway.streams.room import Document
from gateway.streams.service import Gateway
from gateway.streams.start import as_it_is, read_json
from gateway.web import request_head
from gateway.web.answers import answered, json_answer

MOST_LOOKED = 500
MOST_FOUND = 100
_AT_ONCE = 100
_BYTES = 1024 * 1024  # about the largest size of one answer
_STATUSES = ("idle", "busy", "interrupted", "error")
_SORTED_BY = ("thread_id", "status", "created_at", "updated_at", "state_updated_at")
_NOT_HERE = ("values", "extract")


@answered("/threads/search", shape=refused)
async def langgraph_threads_search(gateway: Gateway, request: Request) -> Response:
    """POST: return the threads that match, up to about 1 MiB."""
    owner, body = await _asked(gateway, request)
    most = whole_number("limit", body.get("limit") or 10, MOST_FOUND)
    skipped = whole_number("offset", body.get("offset") or 0, MOST_LOOKED)
    by, order, select = (
        body.get("sort_by") or "updated_at",
        body.get("sort_order") or "desc",
        body.get("select"),
    )
    if by not in _SORTED_BY:
        raise Invalid("sort_by", f"must be one of {', '.join(_SORTED_BY)}")
    if order not in ("asc", "desc"):
        raise Invalid("sort_order", "must be asc or desc")
    found = await _fitting(gateway, owner, body)
    if (by, order) != ("updated_at", "desc"):
        found.sort(key=lambda one: _key(by, *one), reverse=order == "desc")
    told: list[Any] = []
    size = 0
    for thread, state in found[skipped : skipped + most]:
        one = await told_of(thread, state, await thread.found(state.newest))
        size += one.size
        told.append(one if select is None else _selected(one, select))
        if size > _BYTES:
            break
    return json_answer(told)


@answered("/threads/count", shape=refused)
async def langgraph_threads_count(gateway: Gateway, request: Request) -> Response:
    """POST: return how many of the newest 500 threads match."""
    owner, body = await _asked(gateway, request)
    return json_answer(len(await _fitting(gateway, owner, body)))


@answered("/threads/{thread}", shape=refused)
async def langgraph_thread_update(gateway: Gateway, request: Request) -> Response:
    """PATCH: add metadata to a thread, and return the thread."""
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    body = await read_json(request, gateway.bounds, as_it_is, thread.owner)
    if not isinstance(body, dict):
        raise Invalid("body", "must be an object")
    if body.get("ttl"):
        raise Invalid("ttl", "is not to be had here")
    state = await thread.stands()
    await thread.describe({**state.metadata, **metadata_of(body)})
    state = await thread.stands()
    return json_answer(await told_of(thread, state, await thread.found(state.newest)))


async def _asked(gateway: Gateway, request: Request) -> tuple[str, dict[str, Any]]:
    owner = await request_head.owner(gateway, request)
    request_head.check_apart(gateway)
    body = await read_json(request, gateway.bounds, as_it_is, owner)
    if not isinstance(body, dict):
        raise Invalid("body", "must be an object")
    for name in _NOT_HERE:
        if body.get(name):
            raise Invalid(name, "is not to be had here")
    if body.get("status") not in (None, *_STATUSES):
        raise Invalid("status", f"must be one of {', '.join(_STATUSES)}")
    ids = body.get("ids")
    if ids is not None and not (isinstance(ids, list) and all(isinstance(one, str) for one in ids)):
        raise Invalid("ids", "must be a list of strings")
    return owner, body


async def _fitting(gateway: Gateway, owner: str, body: Mapping[str, Any]) -> list[tuple[Thread, State]]:
    """Return those of the caller's newest threads that match the body."""
    store, before = gateway.parts.threads, None
    wanted, status, ids = metadata_of(body), body.get("status"), body.get("ids")
    found: list[tuple[Thread, State]] = []
    for _ in range(MOST_LOOKED // _AT_ONCE):
        listed = await store.listed(owner, before, _AT_ONCE)
        states = await store.looks(owner, [name for _, name in listed]) if listed else []
        for (_, name), state in zip(listed, states, strict=True):
            thread = Thread(gateway, owner, name)
            if not state.created_ms or (ids is not None and name not in ids):
                continue
            if not wanted.items() <= thread.metadata(state).items():
                continue
            if status is None or await thread.status(state) == status:
                found.append((thread, state))
        if len(listed) < _AT_ONCE:
            break
        before = listed[-1][0], quoted(listed[-1][1])
    return found


def _key(by: str, thread: Thread, state: State) -> Any:
    if by == "thread_id":
        return thread.name
    return state.created_ms if by == "created_at" else state.updated_ms


def _selected(one: Document, select: Any) -> dict[str, Any]:
    if not isinstance(select, list) or not all(isinstance(name, str) for name in select):
        raise Invalid("select", "must be a list of strings")
    return {name: value for name, value in one.items() if name in select}


ROUTES = (
    Route("POST", "/threads/search", langgraph_threads_search),
    Route("POST", "/threads/count", langgraph_threads_count),
    Route("PATCH", "/threads/{thread}", langgraph_thread_update),
)
