"""LangGraph's endpoints for threads: what was said in one, and how it stands.

A thread is a name: one that has no run yet is empty, and nothing is stored for it.
"""

from __future__ import annotations

import uuid
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway import protocol
from gateway.formats.base.serving import Route
from gateway.formats.langgraph.projection import CANCELLED
from gateway.formats.langgraph.threads import MOST_WALKED, Began, Thread, name_of, refused, whole_number
from gateway.protocol import Status
from gateway.protocol.errors import Invalid, ThreadBusy
from gateway.runtime.json_pieces import size_of
from gateway.store.record import Record
from gateway.streams.room import Document
from gateway.streams.service import Gateway
from gateway.streams.start import as_it_is, read_json
from gateway.web import request_head
from gateway.web.answers import answered, json_answer
from gateway.web.headers import SECURE

_HISTORY_BYTES = 1024 * 1024
# The state of a thread without a run.
_EMPTY: dict[str, Any] = {
    "values": {},
    "next": [],
    "tasks": [],
    "checkpoint": None,
    "metadata": {},
    "created_at": None,
    "parent_checkpoint": None,
    "interrupts": [],
}


@answered("/threads", shape=refused)
async def langgraph_thread_create(gateway: Gateway, request: Request) -> Response:
    """POST: a thread's name; `thread_id` if the client has one."""
    owner = await request_head.owner(gateway, request)
    body = await read_json(request, gateway.bounds, as_it_is, owner)
    if not isinstance(body, dict):
        raise Invalid("body", "must be an object")
    if body.get("supersteps"):
        raise Invalid("supersteps", "is not to be had here")
    given = body.get("thread_id")
    if given is not None and not isinstance(given, str):
        raise Invalid("thread_id", "must be a string")
    request.path_params["thread"] = str(uuid.uuid4()) if given is None else given
    thread = Thread(gateway, owner, name_of(gateway, request))
    newest = await thread.newest()
    if newest is not None and body.get("if_exists") != "do_nothing":
        raise ThreadBusy(newest.id, "there is a thread of this name, and it has runs")
    return json_answer(await _told(thread, newest))


@answered("/threads/{thread}", shape=refused)
async def langgraph_thread(gateway: Gateway, request: Request) -> Response:
    """GET: a thread, with its state."""
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    return json_answer(await _told(thread, await thread.newest()))


@answered("/threads/{thread}")
async def thread_delete(gateway: Gateway, request: Request) -> Response:
    """DELETE: end what runs in a thread, and delete it with its streams."""
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    await thread.end()
    return Response(status_code=204, headers=SECURE)


@answered("/threads/{thread}/state")
async def thread_state(gateway: Gateway, request: Request) -> Response:
    """GET: how a thread stands: a graph by its newest checkpoint, any other chain by what was said."""
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    return json_answer(await _stands(thread, await thread.newest()))


@answered("/threads/{thread}/history", shape=refused)
async def langgraph_thread_history(gateway: Gateway, request: Request) -> Response:
    """POST: the states that its runs have left, the newest first; about 1 MiB of them."""
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    body = await read_json(request, gateway.bounds, as_it_is, thread.owner)
    if not isinstance(body, dict):
        raise Invalid("body", "must be an object")
    for name in ("metadata", "checkpoint"):
        if body.get(name):
            raise Invalid(name, "is not to be had here")
    most = whole_number("limit", body.get("limit") or 10, MOST_WALKED)
    told: list[Document] = []
    size = 0
    async with aclosing(thread.history(_before(body.get("before")))) as runs:
        async for record, began in runs:
            told.append(await _state(thread, record, began))
            size += size_of(told[-1])
            if len(told) >= most or size > _HISTORY_BYTES:
                break
    return json_answer(told)


def _before(given: Any) -> str:
    """The run that `before` names: a checkpoint's id, the checkpoint, or a config with it."""
    if isinstance(given, dict):
        given = given.get("configurable", given)
    if isinstance(given, dict):
        given = given.get("checkpoint_id", "")
    if given is not None and not isinstance(given, str):
        raise Invalid("before", "must be a checkpoint, or its id")
    return given or ""


async def _stands(thread: Thread, newest: Record | None) -> Document | dict[str, Any]:
    """How a thread stands: a graph's by its checkpoint, another's by the newest run, or by what was said."""
    began = Began({}) if newest is None else await thread.began(newest)
    whole: Document | dict[str, Any] = {**_EMPTY}
    if newest is not None and began.thread:
        whole = await _state(thread, newest, began)
    elif messages := await thread.remembered():
        whole = {**_EMPTY, "values": {"messages": messages}}
    graph = await thread.graph()
    if graph is None:
        return whole
    share = whole.share if isinstance(whole, Document) else None
    metadata = {"thread_id": thread.name, **graph.metadata}
    told = {
        **whole,
        "values": graph.values,
        "next": graph.next,
        "tasks": graph.tasks or whole["tasks"],
        "interrupts": graph.interrupts,
        "checkpoint": _checkpoint(thread, newest.id if newest is not None else graph.run),
        "metadata": metadata | {"run_id": graph.run},
        "created_at": graph.created_at,
    }
    return Document.of(told, share)


async def _state(thread: Thread, record: Record, began: Began) -> Document:
    run = await thread.state(record, began)
    before = _checkpoint(thread, began.before) if began.before else None
    task: dict[str, Any] = {"id": record.id, "name": record.chain, "interrupts": [], "error": None}
    if record.status is Status.FAILED:
        task["error"] = (record.error or {}).get("message")
    if record.status is Status.CANCELLED:
        task["error"] = CANCELLED["message"]
    values = run.values()
    task["interrupts"] = values.pop("__interrupt__", [])
    over = record.status is Status.DONE and not task["interrupts"]
    whole = {
        "values": values,
        "next": [] if record.ended and not task["interrupts"] else [record.chain],
        "tasks": [] if over else [task],
        "checkpoint": _checkpoint(thread, record.id),
        "metadata": {"run_id": record.id, "thread_id": thread.name, **(record.metadata or {})},
        "created_at": protocol.iso(record.ended_ms or record.created_ms),
        "parent_checkpoint": before,
        "interrupts": task["interrupts"],
    }
    return Document.of(whole, run.share)


def _checkpoint(thread: Thread, run_id: str) -> dict[str, Any]:
    """What a run has left, by the run's id: a next one can go on from any that is kept."""
    return {"thread_id": thread.name, "checkpoint_ns": "", "checkpoint_id": run_id, "checkpoint_map": None}


async def _told(thread: Thread, newest: Record | None) -> Document:
    """A thread, as LangGraph's server describes one."""
    at = protocol.iso(newest.created_ms if newest else await thread.gateway.parts.log.now_ms())
    stands = await _stands(thread, newest)
    values, interrupts = (stands["values"] or None), stands["interrupts"]
    share = stands.share if isinstance(stands, Document) else None
    state = await thread.stands()
    status = await thread.gateway.parts.turns.status(thread.owner, state)
    if status == "idle" and interrupts:
        status = "interrupted"
    whole = {
        "thread_id": thread.name,
        "created_at": at,
        "updated_at": at,
        "state_updated_at": at,
        "metadata": {},
        "config": {},
        "status": status,
        "values": values,
        "interrupts": {newest.id: interrupts} if newest is not None and interrupts else {},
    }
    return Document.of(whole, share)


ROUTES = (
    Route("POST", "/threads", langgraph_thread_create),
    Route("GET", "/threads/{thread}", langgraph_thread),
    Route("POST", "/threads/{thread}/history", langgraph_thread_history),
)
