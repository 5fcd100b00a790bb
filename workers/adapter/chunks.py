"""A chain's chunks as events: text, reasoning, tool calls that nobody runs; what is no text is its value."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway import params as chain_params
from gateway import protocol, telemetry
from gateway.protocol import Event
from workers.adapter.values import NOTHING, Sum, plain, size_of

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable, RunnableConfig

    from workers.adapter.calls import Call
    from workers.adapter.tap import Tap

Emit = Callable[[Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the events belong: the stage, the deployment that answers; and what bounds them, in bytes."""

    name: str
    deployment: str
    thread: str = ""  # in a graph's own checkpointer
    owner: str = ""  # the caller whose stream this is, as the chain is told
    stream_id: str = ""  # likewise
    run: int = 0  # of a graph's node
    max_event: int = 1024 * 1024
    max_log: int = 64 * 1024 * 1024

    def text(self, delta: str) -> Event:
        """A piece of text of this stage."""
        return protocol.text(delta, deployment=self.deployment, stage=self.name, run=self.run)

    def custom(self, name: str, data: Any) -> Event:
        """Something named, of this stage."""
        return protocol.custom(name, data, stage=self.name, run=self.run)

    def tool(self, name: str, call_id: str, state: str, said: Any) -> Event:
        """A tool call of this stage begins or ends."""
        return protocol.tool(name, call_id=call_id, stage=self.name, state=state, said=said, run=self.run)


@dataclass(slots=True)
class Outcome:
    """What a stage leaves beside its events; complete when its stream is at its end."""

    finish_reason: str = "stop"
    usage: dict[str, int] = field(default_factory=dict)
    interrupts: list[Any] = field(default_factory=list)  # what a graph asks, where it has stopped to ask
    result: Any = ""  # the stage's text, or the JSON value that it yields instead


async def stream_chunks(
    runnable: Runnable[Any, Any],
    given: Any,
    params: Mapping[str, Any],
    emit: Emit,
    stage: Stage,
    outcome: Outcome,
) -> None:
    """Run a Runnable by `astream`. A chat model has nothing that a callback could add."""
    from langchain_core.language_models import BaseChatModel

    from workers.adapter.calls import Call, marks_its_end
    from workers.adapter.tap import Tap

    tap = Tap(emit, stage)
    alone = isinstance(runnable, BaseChatModel)
    config = config_of(params, stage, [] if alone else tap.callbacks)
    answer = Call(marks=alone and marks_its_end(runnable))
    chunks = runnable.astream(given, config)
    async with tap.listening(outcome) as own:
        try:
            await _pass_on(chunks, tap, stage, own, answer, grows=_grows(runnable))
            if alone:  # elsewhere the tap has judged each call by itself, and here may come those of several
                answer.close()
            for call in answer.whole_calls():
                await tap.call(call)
        finally:
            own.usage, own.finish_reason = answer.usage, answer.finish
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
    outcome.result = own.result


async def _pass_on(chunks: Any, tap: Tap, stage: Stage, own: Outcome, answer: Call, *, grows: bool) -> None:
    pieces: list[str] = []
    calls = Sum(stage.max_event, size=lambda message: size_of(message.tool_call_chunks))
    value = Sum(stage.max_event, grows=grows)
    async for chunk in chunks:
        if grows or not (isinstance(chunk, str) or hasattr(chunk, "content")):
            value.add(chunk)
            continue
        if not isinstance(chunk, str):
            answer.take(chunk)
            if getattr(chunk, "tool_call_chunks", None):
                calls.add(chunk)
            if delta := reasoning_of(chunk):
                await tap.emit(stage.custom("reasoning", {"delta": delta}))
        if delta := text_of(chunk):
            pieces.append(delta)
            await tap.emit(stage.text(delta))
    own.result = "".join(pieces)
    if value.value is not NOTHING:
        own.result = plain(value.value)
        is_text = isinstance(own.result, str)
        await tap.emit(stage.text(own.result) if is_text else stage.custom("result", own.result))


def _grows(runnable: Any) -> bool:
    """Whether its last step yields the whole so far again and again, as parsers of JSON do."""
    from langchain_core.output_parsers import BaseCumulativeTransformOutputParser
    from langchain_core.runnables import RunnableSequence
    from langchain_core.runnables.base import RunnableBindingBase

    while isinstance(runnable, RunnableSequence | RunnableBindingBase):
        runnable = runnable.last if isinstance(runnable, RunnableSequence) else runnable.bound
    return isinstance(runnable, BaseCumulativeTransformOutputParser) and not runnable.diff


def config_of(params: Mapping[str, Any], stage: Stage, callbacks: list[Any]) -> RunnableConfig:
    """What a chain is configured by: the client's params, and callbacks that are told what happens within.

    Owner and stream id are the record's own. The params were checked when the stream was made; names that no
    client may set are taken out here once more, as an older release may have made the record.
    """
    trusted = {chain_params.OWNER: stage.owner, chain_params.STREAM_ID: stage.stream_id}
    config: RunnableConfig = {"configurable": {**chain_params.own(params), **trusted}}
    if telemetry.is_on():
        from workers.tracing import ModelSpans

        callbacks = [ModelSpans(), *callbacks]  # first: the others may end the call by an error
    if callbacks:
        config["callbacks"] = callbacks
    return config


def text_of(chunk: Any) -> str:
    """The text of a chunk: a string, or a message's text, content blocks included.

    Raises TypeError for anything else.
    """
    content = chunk if isinstance(chunk, str) else getattr(chunk, "content", None)
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return text_in(content)
    raise TypeError(f"a chain must stream text or messages, not {type(chunk).__name__}")


def text_in(content: str | list[Any]) -> str:
    """The text of a message's content."""
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else part.get("text") or "" for part in content)


def reasoning_of(chunk: Any) -> str:
    """What a model says of its reasoning: in content blocks, or beside the content as some servers do."""
    if isinstance(chunk.content, str):
        beside = getattr(chunk, "additional_kwargs", None)
        return str(beside.get("reasoning_content") or "") if beside else ""
    return "".join(_reasoning(part) for part in chunk.content if isinstance(part, dict))


def _reasoning(part: Mapping[str, Any]) -> str:
    if part.get("type") == "thinking":
        return str(part.get("thinking") or "")
    if part.get("type") != "reasoning":
        return ""
    summary = part.get("summary") or []
    return str(part.get("reasoning") or "") + "".join(str(item.get("text") or "") for item in summary)
