"""Give each tool call a key that is the same in every attempt, so that its side effect happens once.

An attempt after a failed attempt repeats the calls that may not have ended. A tool can send this key to the
system that it changes (a payment, a mail). That system can then see that the second call is the first one.

A key is made of values that are the same in every attempt, and after an answer to a question: the first
stream, the stage and its run, the task of the graph, the tool's name and arguments, and the number of the
call among equal calls of this task. The task is its step and its place in it, at every depth. The ids of
tasks and calls are never used, because a new attempt makes new ones. A graph that begins again counts its
calls again. In a graph that continues, a task runs again from its beginning, or not at all. So nothing has to
be stored. If the caller repeats a call in a task with the same call id, it is the same call.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import wraps
from threading import Lock
from typing import Any
from uuid import UUID

from gateway.protocol import Event
from gateway.streams import params as chain_params
from workers.langchain.doubts import ToolUnknown, policy_of, settle
from workers.langchain.replays import NOTHING, Logged, Replays
from workers.langchain.stage import Stage

# names of LangGraph
_NAMESPACE, _STEP, _PLACE = "langgraph_checkpoint_ns", "langgraph_step", "langgraph_path"
_RUNTIME = "ToolRuntime"  # LangGraph's class; it has its own config
Scope = tuple[Any, ...]


class Call:
    """One call of a tool.

    `configurable` is the call's own; the callback of the call's start writes the key into it.
    """

    def __init__(self, tool: Any, configurable: dict[str, Any]) -> None:
        self.tool = tool
        self.own = configurable
        self.configurable: dict[str, Any] | None = configurable
        self.policy = policy_of(tool, configurable)
        self.given: Any = NOTHING  # what the tool's function returned
        # Set by the callback of its start: the event's values, and the same call of an earlier attempt.
        self.name, self.call_id, self.input = "", "", None
        self.replays: Replays | None = None
        self.logged: Logged | None = None
        self.doubted: Sequence[Mapping[str, Any]] = ()
        self.fail: Callable[[Exception], None] = lambda error: None

    def begin(self, started: Event, logged: Logged | None, stage: Stage) -> None:
        """Set the event of this call. `logged` is the same call of an earlier attempt, if there is one."""
        data = started.data
        self.name, self.input = data["name"], data["input"]
        self.call_id = (started if logged is None else logged.started).data["call_id"]
        self.replays, self.logged, self.doubted = stage.replays, logged, stage.doubted

    @property
    def is_unknown(self) -> bool:
        """Whether an earlier attempt has begun this call, and it is unknown whether the work was done."""
        return self.logged is not None and self.logged.is_unknown

    def answered(self) -> Any:
        """Return the tool's answer from the log, or NOTHING if the tool must be called."""
        return NOTHING if self.logged is None else self.logged.answered()

    def refused(self) -> ToolUnknown:
        """Return the error that ends the stage, even if the chain catches it."""
        error = ToolUnknown(f"the tool {self.name} may have done its work, and may not be called again")
        self.fail(error)
        return error


_call: ContextVar[Call | None] = ContextVar("holdfast_call", default=None)


def key_of(stage: Stage, *more: Any) -> str:
    """Return the key of a stage's run, or of a part of the run: 64 hexadecimal digits."""
    keyed = stage.keyed or (stage.first or stage.stream_id, stage.thread)
    whole = json.dumps([*keyed, *more], sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()


class CallKeys:
    """The keys of one run of one stage. Callbacks of several threads may use it at the same time."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._scopes: dict[str, Scope] = {}  # LangGraph namespace -> scope of a running task
        self._tasks: dict[UUID, str] = {}  # run id of a task -> its namespace
        self._calls: dict[Scope, dict[str, list[str]]] = {}  # scope -> hash of a call -> ids of equal calls
        self._lock = Lock()

    def begin(self, run_id: UUID, metadata: Mapping[str, Any] | None) -> None:
        """Note a new run. It may be a task of a graph."""
        namespace = str((metadata or {}).get(_NAMESPACE, ""))
        with self._lock:
            if not namespace or namespace in self._scopes:
                return
            place = (metadata or {}).get(_PLACE)
            scope = (*self._around(namespace), (metadata or {}).get(_STEP), json.dumps(place, default=str))
            self._scopes[namespace], self._tasks[run_id] = scope, namespace

    def end(self, run_id: UUID) -> None:
        """Forget a run that has ended. A task that runs again counts its calls again."""
        with self._lock:
            if (namespace := self._tasks.pop(run_id, None)) is not None:
                self._calls.pop(self._scopes.pop(namespace), None)

    def write(
        self, name: str, arguments: Any, call_id: str, metadata: Mapping[str, Any] | None
    ) -> Call | None:
        """Write the key of a tool call into its configurable. The arguments are those in the log.

        `call_id`: the model's id; empty if there is none. Returns the call, or None if it was not made in a
        run of this product.
        """
        call = _call.get()
        if call is None or call.configurable is None:
            return None
        configurable, call.configurable = call.configurable, None
        same = hashlib.sha256(json.dumps([name, arguments], sort_keys=True).encode()).hexdigest()
        with self._lock:
            scope = self._scopes.get(str((metadata or {}).get(_NAMESPACE, "")), ())
            known = self._calls.setdefault(scope, {}).setdefault(same, [])
            if not call_id or call_id not in known:
                known.append(call_id)
            number = len(known) if not call_id else known.index(call_id) + 1
        configurable[chain_params.KEY] = key_of(self._stage, scope, same, number)
        return call

    def _around(self, namespace: str) -> Scope:
        """Return the scope around a task, and LangGraph's numbers of the graphs after the first one."""
        around, _, _ = namespace.rpartition("|")
        graphs: list[str] = []
        while around and around not in self._scopes:
            around, _, segment = around.rpartition("|")
            graphs.append(segment.partition(":")[0])
        return (*self._scopes.get(around, ()), *graphs)


def key_tools() -> None:
    """Give each tool call in a run of this product its own configurable. This is done once in a process.

    LangChain passes the run's config to its tools unchanged, and has no option to change this. So the two
    functions through which all tools are called are replaced.
    """
    from langchain_core.tools import BaseTool

    if not hasattr(BaseTool.run, "__wrapped__"):
        setattr(BaseTool, "run", _keyed(BaseTool.run))  # noqa: B010 - mypy takes no assignment to a method
        setattr(BaseTool, "arun", _keyed_async(BaseTool.arun))  # noqa: B010


def _keyed(run: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(run)
    def keyed(tool: Any, tool_input: Any, *given: Any, config: Any = None, **named: Any) -> Any:
        if not _is_ours(config):
            return run(tool, tool_input, *given, config=config, **named)
        config, call = _own(tool, config)
        token = _call.set(call)
        try:
            return run(_answering(call), _with(tool_input, config), *given, config=config, **named)
        finally:
            _call.reset(token)

    return keyed


def _keyed_async(run: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(run)
    async def keyed(tool: Any, tool_input: Any, *given: Any, config: Any = None, **named: Any) -> Any:
        if not _is_ours(config):
            return await run(tool, tool_input, *given, config=config, **named)
        config, call = _own(tool, config)
        token = _call.set(call)
        try:
            return await run(_answering(call), _with(tool_input, config), *given, config=config, **named)
        finally:
            _call.reset(token)

    return keyed


def _is_ours(config: Any) -> bool:
    return isinstance(config, Mapping) and chain_params.KEY in (config.get("configurable") or {})


def _own(tool: Any, config: Any) -> tuple[Any, Call]:
    configurable = dict(config["configurable"])
    return {**config, "configurable": configurable}, Call(tool, configurable)


def _answering(call: Call) -> Any:
    """Return a copy of the tool. Its function is not called if the log has its answer.

    Its answer is noted.
    """
    tool = copy.copy(call.tool)
    sync, own = call.tool._run, call.tool._arun

    @wraps(sync)
    def run(*args: Any, **named: Any) -> Any:
        answer = call.answered()
        if answer is NOTHING:
            answer = settle(call)
            answer = sync(*args, **named) if answer is NOTHING else answer
        elif call.replays is not None and call.logged is not None and not _in_a_loop():
            call.replays.turn_now(call.logged.end)
        call.given = answer
        return answer

    @wraps(own)
    async def arun(*args: Any, **named: Any) -> Any:
        answer = call.answered()
        if answer is NOTHING:
            answer = settle(call)
            answer = await own(*args, **named) if answer is NOTHING else answer
        elif call.replays is not None and call.logged is not None:
            await call.replays.turn(call.logged.end)
        call.given = answer
        return answer

    vars(tool).update(_run=run, _arun=arun)
    return tool


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _with(tool_input: Any, config: Any) -> Any:
    """Return the arguments. A LangGraph runtime among them gets the call's own config."""
    if not isinstance(tool_input, dict):
        return tool_input
    return {
        name: replace(value, config=config) if type(value).__name__ == _RUNTIME else value
        for name, value in tool_input.items()
    }
