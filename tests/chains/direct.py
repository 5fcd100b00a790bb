"""Run the object itself and record its text, calls, questions and value, as LangChain and LangGraph report
them.

A Runnable is run with `astream`, a compiled graph with its own `messages`, `updates` and `custom` modes,
including its subgraphs. Tools, usage, documents and custom events come from LangChain's callbacks. The value
comes from `ainvoke` of another object of the same factory.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables.utils import AddableDict
from langgraph.pregel import Pregel
from langgraph.types import Command

from tests.chains.cases import Case, Talk, parts_of, run_of_model
from tests.chains.recorder import MAY_PASS, NOTHING, Recorder, Wanted, error_class, text_in

_runs = itertools.count(1)


async def made(make: Any, stack: AsyncExitStack) -> Any:
    """Return the product of a factory, which may be plain, async, or an async context manager."""
    from gateway.settings import Settings

    run_of_model.set(f"direct{next(_runs)}")
    thing = make(Settings())
    if inspect.isawaitable(thing):
        thing = await thing
    elif hasattr(thing, "__aenter__") and not hasattr(thing, "ainvoke"):
        thing = await stack.enter_async_context(thing)
    return thing


def keeps_messages(runnable: Any) -> bool:
    """Return whether the object is a graph that has messages in its state."""
    return isinstance(runnable, Pregel) and "messages" in runnable.channels


def given_of(case: Case, runnable: Any) -> Any:
    """Return the chain's input, as docs/chains.md defines it."""
    if case.given is not None:
        return case.given
    body = case.body
    asked = (
        [{"role": "user", "content": body["user"]}]
        if "user" in body
        else body.get("messages", body.get("input"))
    )
    return {"messages": asked} if keeps_messages(runnable) and isinstance(asked, list | str) else asked


def config_for(runnable: Any, params: Mapping[str, Any], recorder: Recorder | None, thread: str = "") -> dict:
    """Return a config with the params, and with a thread if the graph has a checkpointer."""
    config: dict[str, Any] = {"configurable": dict(params)}
    if isinstance(runnable, Pregel) and runnable.checkpointer not in (None, False, True):
        config["configurable"]["thread_id"] = thread or uuid4().hex
    if recorder is not None:
        config["callbacks"] = [recorder]
    return config


async def wanted(case: Case) -> Wanted:
    """Run a case directly."""
    async with AsyncExitStack() as stack:
        thing = await made(case.make, stack)
        if case.stages:
            return await _stages(case, thing)
        own = Wanted()
        for _ in range(case.times):
            own = Wanted()
            await _run(
                own,
                thing,
                given_of(case, thing),
                case.params,
                case.name,
                context=case.context,
                oracle=case.oracle,
            )
        other = await made(case.make, stack)
        await _value(own, other, given_of(case, other), case)
        return own


async def _run(
    own: Wanted, thing: Any, given: Any, params: Any, name: str, *, context: bool, oracle: str
) -> Any:
    """Record the output of the run; return the value if `ainvoke` was called."""
    recorder, value = Recorder(), NOTHING
    own.given = given
    try:
        if oracle == "ainvoke":
            value = await thing.ainvoke(given, config_for(thing, params, recorder))
            said = text_in(value)
            own.texts = {name: [[said]]} if said else {}
        elif isinstance(thing, Pregel):
            await _graph(
                own,
                thing,
                given,
                config_for(thing, params, recorder),
                recorder,
                name,
                params if context else None,
            )
        else:
            await _chunks(own, thing, given, config_for(thing, params, recorder), recorder, name)
    except Exception as error:
        own.error, own.said = error_class(error), f"{type(error).__name__}: {error}"[:200]
    own.tools += [{k: v for k, v in call.items() if k != "call"} for call in recorder.tools.values()]
    own.customs = recorder.customs + own.customs
    own.sources += recorder.sources
    own.usage = [a + b for a, b in zip(own.usage, recorder.usage, strict=True)]
    if own.finish == "stop":
        own.finish = recorder.finish
    return value


async def _chunks(own: Wanted, thing: Any, given: Any, config: Any, recorder: Recorder, name: str) -> None:
    """Run a Runnable with `astream`: record text and messages; for mappings, the streams of their members."""
    text, adds = "", True
    members: dict[Any, list[str]] = {}
    try:
        async for chunk in thing.astream(given, config):
            if isinstance(chunk, str | AIMessage):
                said = text_in(chunk)
                text += said
                own.pieces += bool(said)
                own.reasoning += reasoning_in(chunk)
            elif isinstance(chunk, Mapping):
                adds = adds and isinstance(chunk, AddableDict)
                for key, part in chunk.items():
                    if isinstance(part, str | AIMessage) and (said := text_in(part)):
                        members.setdefault(key, []).append(said)
    finally:  # a growing value, as from JSON parsers, is no text
        streamed = [p for p in members.values() if (adds and len(p) > 1) or "".join(p) in recorder.whole]
        whole = [text, *("".join(parts) for parts in streamed)]
        own.pieces += sum(map(len, streamed))
        if any(whole):
            own.texts = {name: [[one for one in whole if one]]}


async def _graph(
    own: Wanted, graph: Any, given: Any, config: Any, recorder: Recorder, name: str, context: Any
) -> None:
    """Run a graph with its own stream modes."""
    messages: dict[Any, dict] = {}
    more = {} if context is None else {"context": context}
    modes = ["messages", "custom", "updates"]
    asked: dict[str, Any] = {}
    try:
        async for _, mode, data in graph.astream(given, config, stream_mode=modes, subgraphs=True, **more):
            if mode == "custom":
                own.customs.append(("custom", data))
            elif mode == "updates":
                for one in data.get("__interrupt__") or () if isinstance(data, Mapping) else ():
                    asked[one.id] = one.value
            elif isinstance(data[0], AIMessage):
                message, metadata = data
                path = str(metadata.get("langgraph_checkpoint_ns") or "")
                known = messages.setdefault(
                    message.id, {"path": path, "text": "", "pieces": 0, "reasoning": ""}
                )
                said = text_in(message)
                known["text"] += said
                known["pieces"] += bool(said)
                known["reasoning"] += reasoning_in(message)
    finally:
        runs: dict[str, dict[str, list[str]]] = {}
        for key, one in messages.items():
            if key in recorder.of_tools or one["path"] in recorder.paths_of_tools:
                continue
            own.reasoning += one["reasoning"]
            if one["text"]:
                task, _, below = one["path"].partition("|")
                node = task.partition(":")[0] or name
                runs.setdefault(node, {}).setdefault(task, []).append(one["text"])
                if below and key not in recorder.of_models:
                    own.optional.append((node, one["text"]))
                own.pieces += one["pieces"]
        own.texts = {node: list(tasks.values()) for node, tasks in runs.items()}
        own.interrupts += [{"id": key, "value": value} for key, value in asked.items()]
    if own.interrupts or (
        graph.checkpointer not in (None, False, True) and (await graph.aget_state(config)).next
    ):
        own.finish = "interrupted"


async def _value(own: Wanted, thing: Any, given: Any, case: Case) -> None:
    """Record the value of `ainvoke`, and the tool calls in it that were not run."""
    if own.finish == "interrupted" or (own.error and own.error not in MAY_PASS):
        return
    more = {"context": case.params} if case.context else {}
    try:
        for _ in range(case.times):
            own.final = await thing.ainvoke(given, config_for(thing, case.params, None), **more)
    except Exception as error:  # then the streamed output is the reference
        own.said = f"ainvoke: {type(error).__name__}: {error}"[:200]
        return
    if not own.error:
        own.tools += unanswered(own.final)


def unanswered(value: Any) -> list[dict]:
    """Return the tool calls of a message, or of a state's messages, without an answer: the client must run
    them."""
    messages: list[Any]
    if isinstance(value, AIMessage):
        messages = [value]
    elif isinstance(value, Mapping) and isinstance(value.get("messages"), list):
        messages = value["messages"]
    else:
        return []
    answered = {m.tool_call_id for m in messages if isinstance(m, ToolMessage)}
    calls = [call for m in messages if isinstance(m, AIMessage) for call in m.tool_calls]
    return [
        {"name": c["name"], "input": c["args"], "state": "started"} for c in calls if c["id"] not in answered
    ]


def reasoning_in(chunk: Any) -> str:
    """Return the reasoning of a message, in the form of LangChain's standard content blocks."""
    if not isinstance(chunk, AIMessage):
        return ""
    blocks: list[Any] = chunk.content_blocks
    return "".join(b.get("reasoning") or "" for b in blocks if b.get("type") == "reasoning")


async def _stages(case: Case, parts: Mapping[str, Any]) -> Wanted:
    """Run the stages of a chain one after the other. Each gets the input that docs/chains.md defines."""
    body, own = case.body, Wanted()
    results: dict[str, Any] = {}
    asked = (
        [{"role": "user", "content": body["user"]}]
        if "user" in body
        else body.get("messages", body.get("input"))
    )
    for name in case.stages:
        runnable, over = parts_of(parts[name])
        values = []
        for item in over({"input": asked, **results}) if over else [NOTHING]:
            given = {"input": asked, **results} | ({} if item is NOTHING else {"item": item})
            if keeps_messages(runnable):
                given = {**given, "messages": asked}
            one = Wanted()
            await _run(one, runnable, given, case.params, name, context=False, oracle="astream")
            for node, runs in one.texts.items():
                own.texts.setdefault(node, []).extend(runs)
            for field_ in ("tools", "customs", "sources", "interrupts"):
                getattr(own, field_).extend(getattr(one, field_))
            own.usage = [a + b for a, b in zip(own.usage, one.usage, strict=True)]
            own.pieces, own.finish, own.error, own.said = (
                own.pieces + one.pieces,
                one.finish,
                one.error,
                one.said,
            )
            if one.error or one.interrupts:
                own.final = NOTHING
                return own
            last = await runnable.ainvoke(given, config_for(runnable, case.params, None))
            own.tools += unanswered(last)
            values.append(kept(last))
        results[name] = values if over else values[0]
        own.values[name] = values
        own.final = last if not over else results[name]
        own.given = asked
    return own


def kept(value: Any) -> Any:
    """Return a stage's result in the form for the next stage: its text, or the JSON value."""
    if isinstance(value, AIMessage):
        return value if value.tool_calls else text_in(value)
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list) and value["messages"]:
        return text_in(value["messages"][-1])
    return (
        value.model_dump() if hasattr(value, "model_dump") and not isinstance(value, BaseMessage) else value
    )


async def wanted_turns(talk: Talk) -> list[Wanted]:
    """Run a conversation with the graph itself, in one thread of its checkpointer."""
    async with AsyncExitStack() as stack:
        graph = await made(talk.make, stack)
        thread = uuid4().hex
        turns: list[Wanted] = []
        asked: list[dict] = []
        for turn in talk.turns:
            own, recorder = Wanted(), Recorder()
            config = config_for(graph, talk.params, recorder, thread)
            given = turn.input
            if turn.command is not None:
                given = Command(resume=turn.command(asked) if callable(turn.command) else turn.command)
            own.given = given
            try:
                await _graph(
                    own, graph, given, config, recorder, talk.name, talk.params if talk.context else None
                )
                if own.finish != "interrupted":
                    state = (await graph.aget_state(config)).values
                    shown = graph.output_channels if isinstance(graph.output_channels, list) else list(state)
                    own.final = (
                        {key: value for key, value in state.items() if key in shown}
                        if isinstance(state, Mapping)
                        else state
                    )
            except Exception as error:
                own.error, own.said = error_class(error), f"{type(error).__name__}: {error}"[:200]
            turns.append(own)
            asked = own.interrupts
        return turns
