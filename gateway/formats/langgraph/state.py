"""LangGraph's endpoints for threads and their states.

A thread is only a name. A thread without a run is empty, and nothing is stored for it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
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
from gateway.store.record import Record
from gateway.store.threads import State
from gateway.streams.graph_state import GraphState
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
    """POST: create a thread. Its name is `thread_id`, or a new UUID if the client sends none."""
    owner = await request_head.owner(gateway, request)
    body = await read_json(request, gateway.bounds, as_it_is, owner)
    if not isinstance(body, dict):
        raise Invalid("body", "must be an object")
    for field in ("supersteps", "ttl"):
        if body.get(field):
            raise Invalid(field, "is not to be had here")
    given = body.get("thread_id")
    if given is not None and not isinstance(given, str):
        raise Invalid("thread_id", "must be a string")
    request.path_params["thread"] = str(uuid.uuid4()) if given is None else given
    thread = Thread(gateway, owner, name_of(gateway, request))
    newest = await thread.newest()
    if newest is not None and body.get("if_exists") != "do_nothing":
        raise ThreadBusy(newest.id, "there is a thread of this name, and it has runs")
    state = await thread.stands()
    if (metadata := metadata_of(body)) and not state.metadata:
        await thread.describe(metadata)
        state = await thread.stands()
    return json_answer(await told_of(thread, state, newest))


@answered("/threads/{thread}", shape=refused)
async def langgraph_thread(gateway: Gateway, request: Request) -> Response:
    """GET: return a thread with its state."""
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    state = await thread.stands()
    return json_answer(await told_of(thread, state, await thread.found(state.newest)))


@answered("/threads/{thread}")
async def thread_delete(gateway: Gateway, request: Request) -> Response:
    """DELETE: end the thread's running streams, then delete the thread with all its streams."""
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    await thread.end()
    return Response(status_code=204, headers=SECURE)


@answered("/threads/{thread}/state")
async def thread_state(gateway: Gateway, request: Request) -> Response:
    """GET: return a thread's state.

    A graph's state is its newest checkpoint. Any other chain's state has the messages so far.
    """
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    return json_answer(await standing(thread, await thread.newest()))


@answered("/threads/{thread}/state/{id}", shape=refused)
async def langgraph_thread_state_at(gateway: Gateway, request: Request) -> Response:
    """GET: return a thread's state at a checkpoint."""
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    return json_answer(await _at(thread, request.path_params["id"]))


@answered("/threads/{thread}/state/checkpoint", shape=refused)
async def langgraph_thread_state_of(gateway: Gateway, request: Request) -> Response:
    """POST: return a thread's state at the checkpoint that the body names; without one, the newest state."""
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    body = await read_json(request, gateway.bounds, as_it_is, thread.owner)
    if not isinstance(body, dict):
        raise Invalid("body", "must be an object")
    checkpoint = _before("checkpoint", body.get("checkpoint"))
    if not checkpoint:
        return json_answer(await standing(thread, await thread.newest()))
    return json_answer(await _at(thread, checkpoint))


@answered("/threads/{thread}/history", shape=refused)
async def langgraph_thread_history(gateway: Gateway, request: Request) -> Response:
    """POST: return the states after the thread's runs, the newest first, up to about 1 MiB."""
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    body = await read_json(request, gateway.bounds, as_it_is, thread.owner)
    if not isinstance(body, dict):
        raise Invalid("body", "must be an object")
    most = whole_number("limit", body.get("limit") or 10, MOST_WALKED)
    before, only = _before("before", body.get("before")), _before("checkpoint", body.get("checkpoint"))
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise Invalid("metadata", "must be an object")
    wanted = {"most": most, "before": before, "checkpoint": only, "metadata": metadata}
    if graphs := await thread.graphs(**wanted):
        return json_answer([_of_graph(thread, None, Began({}), one) for one in graphs])
    if only or metadata or await thread.graph() is not None:
        return json_answer([])
    told: list[Document] = []
    size = 0
    async with aclosing(thread.history(before)) as runs:
        async for record, began in runs:
            told.append(await _state(thread, record, began))
            size += told[-1].size
            if len(told) >= most or size > _HISTORY_BYTES:
                break
    return json_answer(told)


def _before(where: str, given: Any) -> str:
    """Return the checkpoint's id; `given` is the id, a checkpoint, or a config with a checkpoint."""
    if isinstance(given, dict):
        given = given.get("configurable", given)
    if isinstance(given, dict):
        given = given.get("checkpoint_id", "")
    if given is not None and not isinstance(given, str):
        raise Invalid(where, "must be a checkpoint, or its id")
    return given or ""


async def _at(thread: Thread, checkpoint: str) -> Document:
    """Return the thread's state at a checkpoint. For a chain that is not a graph, `checkpoint` is a run's id.

    Raises StreamNotFound.
    """
    if graphs := await thread.graphs(checkpoint=checkpoint):
        return _of_graph(thread, None, Began({}), graphs[0])
    record, began = await thread.own(checkpoint)
    return await _state(thread, record, began)


async def standing(thread: Thread, newest: Record | None) -> Document:
    """Return a thread's state: from a graph's checkpoint, else the newest run, else the thread's memory."""
    began = Began({}) if newest is None else await thread.began(newest)
    if (graph := await thread.graph()) is not None:
        return _of_graph(thread, newest, began, graph)
    if newest is not None and began.thread:
        return await _state(thread, newest, began)
    if messages := await thread.remembered():
        return Document.of({**_EMPTY, "values": {"messages": messages}}, None)
    return Document.of({**_EMPTY}, None)


def _of_graph(thread: Thread, newest: Record | None, began: Began, graph: GraphState) -> Document:
    told = {
        "values": graph.values,
        "next": graph.next,
        "tasks": graph.tasks or (_tasks(newest) if newest is not None and began.thread else []),
        "checkpoint": _checkpoint(thread, graph.id),
        "metadata": {"thread_id": thread.name, **graph.metadata, "run_id": graph.run},
        "created_at": graph.created_at,
        "parent_checkpoint": _checkpoint(thread, graph.parent) if graph.parent else None,
        "interrupts": graph.interrupts,
    }
    return Document.of(told, graph.share, graph.size)


async def _state(thread: Thread, record: Record, began: Began) -> Document:
    run = await thread.state(record, began)
    values = run.values()
    interrupts = values.pop("__interrupt__", []) if isinstance(values, dict) else []
    whole = {
        "values": values,
        "next": [] if record.ended and not interrupts else [record.chain],
        "tasks": _tasks(record, interrupts),
        "checkpoint": _checkpoint(thread, record.id),
        "metadata": {"run_id": record.id, "thread_id": thread.name, **(record.metadata or {})},
        "created_at": protocol.iso(record.ended_ms or record.created_ms),
        "parent_checkpoint": _checkpoint(thread, began.before) if began.before else None,
        "interrupts": interrupts,
    }
    return Document.of(whole, run.share)


def _tasks(record: Record, interrupts: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """Return the run's open task, which is its chain. A run that is done and has no question has no task."""
    if record.status is Status.DONE and not interrupts:
        return []
    error = None
    if record.status is Status.FAILED:
        error = (record.error or {}).get("message")
    if record.status is Status.CANCELLED:
        error = CANCELLED["message"]
    return [{"id": record.id, "name": record.chain, "interrupts": interrupts, "error": error}]


def _checkpoint(thread: Thread, run_id: str) -> dict[str, Any]:
    """Return a checkpoint object for this id: a run's id, or the id of a graph's checkpoint.

    A next run can continue from any checkpoint that is still stored.
    """
    return {"thread_id": thread.name, "checkpoint_ns": "", "checkpoint_id": run_id, "checkpoint_map": None}


async def told_of(thread: Thread, state: State, newest: Record | None) -> Document:
    """Return a thread's JSON document, in the form of LangGraph's server."""
    now_ms = state.created_ms or await thread.gateway.parts.log.now_ms()
    created, updated = protocol.iso(now_ms), protocol.iso(state.updated_ms or now_ms)
    stands = await standing(thread, newest)
    status = await thread.status(state)
    if status == "idle" and stands["interrupts"]:
        status = "interrupted"
    asked = {one["id"]: one["interrupts"] for one in stands["tasks"] if one["interrupts"]}
    whole = {
        "thread_id": thread.name,
        "created_at": created,
        "updated_at": updated,
        "state_updated_at": updated,
        "metadata": thread.metadata(state),
        "config": {},
        "status": status,
        "values": stands["values"] or None,
        "interrupts": asked,
    }
    return Document.of(whole, stands.share, stands.size)


def metadata_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body's metadata, with its `graph_id`. Raises Invalid."""
    metadata, graph = body.get("metadata") or {}, body.get("graph_id")
    if not isinstance(metadata, dict):
        raise Invalid("metadata", "must be an object")
    if graph is not None and not isinstance(graph, str):
        raise Invalid("graph_id", "must be a string")
    return {**metadata, **({"graph_id": graph} if graph else {})}


ROUTES = (
    Route("POST", "/threads", langgraph_thread_create),
    Route("GET", "/threads/{thread}", langgraph_thread),
    Route("POST", "/threads/{thread}/history", langgraph_thread_history),
    Route("POST", "/threads/{thread}/state/checkpoint", langgraph_thread_state_of),
    Route("GET", "/threads/{thread}/state/{id}", langgraph_thread_state_at),
)
