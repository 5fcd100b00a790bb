"""A key for each call of a tool that is the same in every attempt, so that its side effect is made once.

An attempt that goes on where another fell calls again what it cannot know to have ended. A tool that hands
this key to the system which it changes (a payment, a mail) lets that system see the second call as the first.

A key is made of what is the same in every attempt, and after an answer: the first stream, the stage and its
run, the task of the graph (its step and its place in it, at every depth, never the ids of tasks and calls,
which a new attempt makes anew), the tool's name and arguments, and which of the same calls of this task it
is. A graph that begins anew counts anew; of one that goes on, a task runs again as a whole or not at all. So
nothing has to be kept. A call that its caller repeats within a task under the same call id is the same call.
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

_NAMESPACE, _STEP, _PLACE = "langgraph_checkpoint_ns", "langgraph_step", "langgraph_path"  # LangGraph's names
_RUNTIME = "ToolRuntime"  # LangGraph's class, which has a configuration of its own
Scope = tuple[Any, ...]


class Call:
    """One call of a tool. `configurable` is its own, until the callback of its start has written the key."""

    def __init__(self, tool: Any, configurable: dict[str, Any]) -> None:
        self.tool = tool
        self.own = configurable
        self.configurable: dict[str, Any] | None = configurable
        self.policy = policy_of(tool, configurable)
        self.given: Any = NOTHING  # what the tool's function gave
        # What the callback of its start knows: the event, the call of an earlier attempt that this one is.
        self.name, self.call_id, self.input = "", "", None
        self.replays: Replays | None = None
        self.logged: Logged | None = None
        self.doubted: Sequence[Mapping[str, Any]] = ()
        self.fail: Callable[[Exception], None] = lambda error: None

    def begin(self, started: Event, logged: Logged | None, stage: Stage) -> None:
        """Its event is this one; `logged` is the call of an earlier attempt that it is."""
        data = started.data
        self.name, self.input = data["name"], data["input"]
        self.call_id = (started if logged is None else logged.started).data["call_id"]
        self.replays, self.logged, self.doubted = stage.replays, logged, stage.doubted

    @property
    def is_unknown(self) -> bool:
        """Whether an earlier attempt has begun it, and nobody knows whether it has done its work."""
        return self.logged is not None and self.logged.is_unknown

    def answered(self) -> Any:
        """What the log says that the tool has answered; NOTHING where the call has to be made."""
        return NOTHING if self.logged is None else self.logged.answered()

    def refused(self) -> ToolUnknown:
        """The error that ends the stage, whatever the chain makes of it."""
        error = ToolUnknown(f"the tool {self.name} may have done its work, and may not be called again")
        self.fail(error)
        return error


_call: ContextVar[Call | None] = ContextVar("holdfast_call", default=None)


def key_of(stage: Stage, *more: Any) -> str:
    """The key of a run of a stage, or of something within it: 64 hexadecimal digits."""
    keyed = stage.keyed or (stage.first or stage.stream_id, stage.thread)
    whole = json.dumps([*keyed, *more], sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()


class CallKeys:
    """The keys of one run of one stage. Callbacks of several threads may ask at once."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._scopes: dict[str, Scope] = {}  # of tasks that run, by LangGraph's namespaces
        self._tasks: dict[UUID, str] = {}  # the namespaces, by the run that is the task
        self._calls: dict[Scope, dict[str, list[str]]] = {}  # the ids of the same calls, by their hash
        self._lock = Lock()

    def begin(self, run_id: UUID, metadata: Mapping[str, Any] | None) -> None:
        """A run begins; perhaps it is a task of a graph."""
        namespace = str((metadata or {}).get(_NAMESPACE, ""))
        with self._lock:
            if not namespace or namespace in self._scopes:
                return
            place = (metadata or {}).get(_PLACE)
            scope = (*self._around(namespace), (metadata or {}).get(_STEP), json.dumps(place, default=str))
            self._scopes[namespace], self._tasks[run_id] = scope, namespace

    def end(self, run_id: UUID) -> None:
        """A run is over; a task that is tried again counts anew."""
        with self._lock:
            if (namespace := self._tasks.pop(run_id, None)) is not None:
                self._calls.pop(self._scopes.pop(namespace), None)

    def write(
        self, name: str, arguments: Any, call_id: str, metadata: Mapping[str, Any] | None
    ) -> Call | None:
        """A tool is called with these arguments, as the log has them: its configurable gets its key.

        `call_id`: the model's; empty where there is none. Gives the call; None where it is none of ours.
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
        """The scope of the task around a task, and what LangGraph numbers its graphs by beyond the first."""
        around, _, _ = namespace.rpartition("|")
        graphs: list[str] = []
        while around and around not in self._scopes:
            around, _, segment = around.rpartition("|")
            graphs.append(segment.partition(":")[0])
        return (*self._scopes.get(around, ()), *graphs)


def key_tools() -> None:
    """Have each call of a tool in a run of ours get a configurable of its own; once in a process.

    LangChain hands the configuration of the run on to its tools as it is, and has no way to say otherwise
    from outside. So the two functions through which all tools are called are changed.
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
    """The tool, whose function is not called where the log has its answer, and which notes what it gave."""
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
    """The arguments; LangGraph's runtime among them has the call's own configuration."""
    if not isinstance(tool_input, dict):
        return tool_input
    return {
        name: replace(value, config=config) if type(value).__name__ == _RUNTIME else value
        for name, value in tool_input.items()
    }
