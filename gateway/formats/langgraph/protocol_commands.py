"""POST /threads/{thread}/commands: runs the commands that a client of the agent streaming protocol sends.

The status is 200 for every command that can be parsed. The `type` of the answer says whether the command
succeeded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.formats.base.projection import events
from gateway.formats.base.serving import Route
from gateway.formats.langgraph.protocol_events import projection_of, read_body
from gateway.formats.langgraph.protocol_filter import EventFilter, first_of_turn, object_in, strings
from gateway.formats.langgraph.protocol_projection import ThreadRun
from gateway.formats.langgraph.request import parse_run
from gateway.formats.langgraph.runs import begin_in
from gateway.formats.langgraph.state import standing
from gateway.formats.langgraph.threads import Thread, name_of, refused
from gateway.protocol.errors import (
    AlreadyAnswered,
    HoldfastError,
    Invalid,
    NotWaiting,
    StreamGone,
    StreamNotFound,
    ThreadBusy,
    UnansweredInterrupts,
    UnknownInterrupt,
)
from gateway.runtime.off_loop import aside
from gateway.store.record import Record
from gateway.streams.resume import MOST_RESPONSES
from gateway.streams.service import Gateway
from gateway.streams.start import STRATEGIES, as_it_is
from gateway.web import request_head
from gateway.web.answers import answered, json_answer

_DEFAULT_STRATEGY, _COMMAND = "enqueue", "command_id"
_ERRORS: Mapping[type[HoldfastError], str] = {
    Invalid: "invalid_argument",
    ThreadBusy: "unknown_error",  # the code of LangGraph's server for a run that cannot be created
    UnansweredInterrupts: "invalid_argument",
    UnknownInterrupt: "no_such_interrupt",
    NotWaiting: "no_such_interrupt",
    AlreadyAnswered: "no_such_interrupt",
    StreamNotFound: "no_such_run",
    StreamGone: "no_such_run",
}


class NotDone(Exception):
    """A command failed. `code` is the protocol's error code, and the text is the reason."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


@answered("/threads/{thread}/commands", shape=refused, relative=True)
async def langgraph_thread_command(gateway: Gateway, request: Request) -> Response:
    """POST: run one command. The thread's events are sent on another connection."""
    thread = Thread(gateway, await request_head.owner(gateway, request), name_of(gateway, request))
    given = await read_body(thread, request, as_it_is)
    number = given.get("id") if isinstance(given, dict) else None
    if type(number) is not int or not isinstance(given.get("method"), str):
        told = {"type": "error", "id": number, "error": "invalid_argument"}
        return json_answer(told | {"message": "a command is an object with a whole id and a method"}, 400)
    command = _COMMANDS.get(given["method"])
    try:
        if command is None:
            raise NotDone("unknown_command", "this is none of " + ", ".join(_COMMANDS))
        # A client that got no answer sends the command again with the same id: this returns the same run.
        # A command with another id starts another run, even if all its other fields are equal.
        params = {**object_in(given, "params"), _COMMAND: number}
        result, through = await command(thread, request, params)
    except NotDone as error:
        return json_answer({"type": "error", "id": number, "error": error.code, "message": str(error)})
    except tuple(_ERRORS) as error:
        code = next(name for kind, name in _ERRORS.items() if isinstance(error, kind))
        if error.extensions.get("field") == "assistant_id":
            code = _ERRORS[ThreadBusy]
        return json_answer({"type": "error", "id": number, "error": code, "message": error.detail})
    meta = {"applied_through_seq": through}
    return json_answer({"type": "success", "id": number, "result": result, "meta": meta})


# The result, and the number of the last event before the events that the command causes.
Answer = tuple[Any, int]


async def _run_start(thread: Thread, request: Request, params: Mapping[str, Any]) -> Answer:
    """Start a run of the thread, and create the thread if necessary.

    If the thread has an open question, the input is the answer to the question.
    """
    chain, given = params.get("assistant_id"), params.get("input")
    if not isinstance(chain, str) or not chain:
        raise NotDone("invalid_argument", "run.start needs an assistant_id")
    body: dict[str, Any] = {"assistant_id": chain, "input": given} | _of_run(params)
    strategy = params.get("multitaskStrategy", params.get("multitask_strategy"))
    body["multitask_strategy"] = strategy if strategy in STRATEGIES else _DEFAULT_STRATEGY
    newest = await thread.newest()
    if given is not None and newest is not None and newest.questions:
        body |= {"input": None, "command": {"resume": given}}
    record = await _begun(thread, request, body)
    return {"run_id": record.id}, await _through(thread, record)


async def _input_respond(thread: Thread, request: Request, params: Mapping[str, Any]) -> Answer:
    """Start the run that continues with the answers to all open questions of the thread."""
    answers = _answers(params)
    newest = await thread.newest()
    open_ones = {one["id"] for one in (newest.questions or ())} if newest is not None else set()
    for name in answers:
        if name not in open_ones:
            raise NotDone("no_such_interrupt", "this is no open question of the thread")
    assert newest is not None
    command = {"resume": answers} | {name: params[name] for name in ("update", "goto") if params.get(name)}
    body = {"assistant_id": newest.chain, "input": None, "command": command} | _of_run(params)
    return {}, await _through(thread, await _begun(thread, request, body))


async def _state_get(thread: Thread, request: Request, params: Mapping[str, Any]) -> Answer:
    """Return the thread's state, or only the members of the state that `keys` names."""
    if params.get("namespace"):
        raise NotDone("no_such_namespace", "the state of a thread is its graph's, not a subgraph's")
    keys = params.get("keys")
    if keys is not None and strings(keys) is None:
        raise NotDone("invalid_argument", "keys must be a list of strings")
    told = await standing(thread, await thread.newest())
    values = told["values"] or {}
    if keys is not None and isinstance(values, dict):
        values = {name: value for name, value in values.items() if name in keys}
    result = {"values": values}
    if told["checkpoint"]:
        result["checkpoint"] = {"id": told["checkpoint"]["checkpoint_id"]}
    return result, 0


async def _agent_tree(thread: Thread, request: Request, params: Mapping[str, Any]) -> Answer:
    """Return the tree of namespaces of the run that has the thread's turn, or that had the turn last."""
    turn = await thread.gateway.parts.threads.last_turn(thread.owner, thread.name)
    record = await thread.found(turn.stream_id) if turn is not None else None
    if turn is None or record is None:
        raise NotDone("no_such_run", "the thread has no run")
    began = await thread.began(record)
    run = projection_of(thread, record, turn.number, dict(began.given), EventFilter(frozenset()))
    share = await thread.gateway.room_for(record)
    async with thread.gateway.folding:
        await _read(thread, record, run)
    del share
    return {"tree": run.tree.told()}, 0


async def _read(thread: Thread, record: Record, run: ThreadRun) -> None:
    after, at_end = None, False
    while not at_end:
        piece = await thread.gateway.parts.log.read(record.id, after)
        if piece.last is None:
            raise StreamGone

        def take(frames: bytes = piece.frames) -> None:
            for event_id, event in events(frames):
                run.take(event_id, event)

        await aside(len(piece.frames), take, thread.owner)
        after, at_end = piece.last, piece.at_end or piece.final


def _of_run(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a command's parameters add to the body of a run."""
    told = {name: params[name] for name in ("config", "metadata") if params.get(name) is not None}
    configurable = object_in(object_in(params, "config"), "configurable")
    if checkpoint := configurable.get("checkpoint_id"):
        told["checkpoint"] = {"checkpoint_id": checkpoint}
        left = {name: value for name, value in configurable.items() if name != "checkpoint_id"}
        told["config"] = {**params["config"], "configurable": left}
    return told | {"stream_mode": ["values"], "stream_subgraphs": True, _COMMAND: params[_COMMAND]}


def _answers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answers by the ids of their questions.

    The parameters have one answer, or several in `responses`. Raises NotDone.
    """
    many = params.get("responses")
    entries = many if isinstance(many, list) else [params]
    if not 1 <= len(entries) <= MOST_RESPONSES:
        raise NotDone("invalid_argument", f"input.respond needs 1 to {MOST_RESPONSES} answers")
    answers: dict[str, Any] = {}
    for one in entries:
        if not isinstance(one, dict) or not isinstance(one.get("interrupt_id"), str):
            raise NotDone("invalid_argument", "an answer is an object with an interrupt_id")
        if strings(one.get("namespace", [])) is None:
            raise NotDone("invalid_argument", "namespace must be a list of strings")
        answers[one["interrupt_id"]] = one.get("response")
    return answers


async def _begun(thread: Thread, request: Request, body: dict[str, Any]) -> Record:
    key, bounds = request_head.idempotency_key(request), thread.gateway.bounds
    asked = await aside(_size(request), lambda: parse_run(body, key, bounds), thread.owner)
    record, _ = await begin_in(thread, request, asked, followed=True)
    return record


def _size(request: Request) -> int:
    return int(request.headers.get("content-length", 0) or 0)


async def _through(thread: Thread, record: Record) -> int:
    """Return the number of the last event before this run's events; 0 while the run waits for its turn."""
    number = await thread.gateway.parts.threads.turn_of(thread.owner, thread.name, record.id)
    return first_of_turn(number) if number is not None else 0


Command = Callable[[Thread, Request, Mapping[str, Any]], Awaitable[Answer]]
_COMMANDS: Mapping[str, Command] = {
    "run.start": _run_start,
    "input.respond": _input_respond,
    "state.get": _state_get,
    "agent.getTree": _agent_tree,
}
ROUTES = (Route("POST", "/threads/{thread}/commands", langgraph_thread_command),)
