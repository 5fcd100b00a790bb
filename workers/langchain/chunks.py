"""Convert a Runnable's chunks to events: text, reasoning, and tool calls for the client.

The rest is its value.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk

from gateway.observe import telemetry
from gateway.streams import params as chain_params
from workers.langchain.calls import MARKERS, Call, marks_its_end
from workers.langchain.content import reasoning_of, text_in
from workers.langchain.halves import paired
from workers.langchain.keys import key_of
from workers.langchain.members import Members
from workers.langchain.stage import Emit, Outcome, Stage
from workers.langchain.values import NOTHING, Sum, plain, size_of

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable, RunnableConfig

    from workers.langchain.inside import Inside

_log = logging.getLogger("holdfast.chain")


async def stream_chunks(
    runnable: Runnable[Any, Any],
    given: Any,
    params: Mapping[str, Any],
    emit: Emit,
    stage: Stage,
    outcome: Outcome,
) -> None:
    """Run a Runnable with `astream`. A chat model needs no callback, because its chunks show everything."""
    from langchain_core.language_models import BaseChatModel

    from workers.langchain.inside import Inside

    tap = Inside(emit, stage)
    alone = isinstance(runnable, BaseChatModel)
    config = config_of(params, stage, [] if alone else tap.callbacks)
    answer = Call(marks=alone and marks_its_end(runnable))
    chunks = runnable.astream(given, config)
    async with tap.listening(outcome) as own:
        try:
            said = Said(tap, stage, answer, runnable)
            await said.follow(chunks)
            own.result = await said.end()
            if alone:  # otherwise the tap has judged each call, and these chunks may be of several calls
                answer.close()
            if calls := answer.whole_calls():
                own.result = await _told_calls(tap, own.result, calls)
        finally:
            own.usage, own.finish_reason = answer.usage, answer.finish
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
    outcome.result = own.result


class Said:
    """Collects a Runnable's chunks: strings and AI messages are its text, all others are its value."""

    def __init__(self, tap: Inside, stage: Stage, answer: Call, runnable: Any) -> None:
        self._tap = tap
        self._stage = stage
        self._answer = answer
        last = last_of(runnable)
        self._grows = _grows(last)
        self._pieces: list[str] = []
        self._calls = Sum(stage.max_event, size=lambda message: size_of(message.tool_call_chunks))
        self._value = Sum(stage.max_event, grows=self._grows)
        self._members = Members(tap, stage, last)

    async def follow(self, chunks: AsyncIterator[Any]) -> None:
        """Read all chunks. Raises TooLong if a value becomes larger than an event may be."""
        async for chunk in chunks:
            if self._grows:
                self._value.add(chunk)
            elif _is_text(chunk):  # of a chat model nearly each chunk: asked first, as the rest costs more
                await self._say_of(chunk)
            elif isinstance(chunk, str):
                await self._say(chunk)
            elif isinstance(chunk, AIMessage):
                await self._take(chunk)
            elif isinstance(chunk, Mapping):
                await self._members.add(chunk)
            else:
                self._value.add(chunk)

    async def _say_of(self, message: AIMessageChunk) -> None:
        """As `_take`, of a message that is nothing but text."""
        self._answer.streams()
        if content := message.content:
            self._pieces.append(content)  # type: ignore[arg-type] # `_is_text` has seen that it is a string
            await self._tap.emit(self._stage.text(content))  # type: ignore[arg-type] # likewise

    async def _take(self, message: AIMessage) -> None:
        self._answer.take(message)
        content = message.content
        if not (is_bare := type(content) is str and not message.additional_kwargs):
            if delta := reasoning_of(message):
                await self._tap.emit(self._stage.reasoning(delta))
            content = text_in(content)
        if isinstance(message, AIMessageChunk) and message.tool_call_chunks:
            self._calls.add(message)
        if content:
            self._pieces.append(content)
            await self._tap.emit(self._stage.text(content))
        if not is_bare:
            for event in self._stage.beside(message):
                await self._tap.emit(event)

    async def end(self) -> Any:
        """Emit the value, if it is not text. Return the whole result."""
        if not self._members.is_empty:
            return await self._members.end()
        if self._value.value is NOTHING:
            return paired("".join(self._pieces))
        if self._value.value is None and not self._pieces:
            _log.warning(
                "stage %s: its result is None. Does a function of it lack a `return`?", self._stage.name
            )
        value, result = self._value.value, plain(self._value.value)
        is_text = isinstance(value, str)
        await self._tap.emit(self._stage.text(result) if is_text else self._stage.custom("result", result))
        return result

    async def _say(self, delta: str) -> None:
        if delta:
            self._pieces.append(str(delta))
            await self._tap.emit(self._stage.text(str(delta)))


async def _told_calls(tap: Inside, result: Any, calls: Any) -> Any:
    """Emit tool calls for the client.

    Return the result with these calls, as a message that LangChain can read.
    """
    for call in calls:
        await tap.call(call)
    kept = [{"name": call["name"], "args": plain(call["args"]), "id": call.get("id")} for call in calls]
    return {"type": "ai", "content": result, "tool_calls": kept} if isinstance(result, str) else result


def _is_text(chunk: Any) -> bool:
    """Whether a chunk is a message's, and nothing but text: no call, no usage, no end, nothing beside."""
    return (
        type(chunk) is AIMessageChunk
        and type(chunk.content) is str
        and not chunk.additional_kwargs
        and not chunk.tool_call_chunks
        and not chunk.usage_metadata
        and (not (metadata := chunk.response_metadata) or MARKERS.isdisjoint(metadata))
    )


def last_of(runnable: Any) -> Any:
    """Return the step of a Runnable that yields its chunks."""
    from langchain_core.runnables import RunnableSequence
    from langchain_core.runnables.base import RunnableBindingBase

    while isinstance(runnable, RunnableSequence | RunnableBindingBase):
        runnable = runnable.last if isinstance(runnable, RunnableSequence) else runnable.bound
    return runnable


def _grows(last: Any) -> bool:
    """Return whether each chunk of this step has the whole value so far, as with parsers of JSON."""
    from langchain_core.output_parsers import BaseCumulativeTransformOutputParser

    return isinstance(last, BaseCumulativeTransformOutputParser) and not last.diff


def trusted(stage: Stage) -> dict[str, Any]:
    """Return the facts about the caller and the stream for a chain, under names that no client can set."""
    told = {
        chain_params.OWNER: stage.owner,
        chain_params.STREAM_ID: stage.stream_id,
        chain_params.ATTEMPT: stage.attempt,
        chain_params.METADATA: chain_params.own(stage.metadata or {}),
        chain_params.KEY: key_of(stage),
    }
    return told | ({chain_params.CLAIMS: dict(stage.claims)} if stage.claims else {})


def config_of(params: Mapping[str, Any], stage: Stage, callbacks: list[Any]) -> RunnableConfig:
    """Return the config of a chain: the client's params, and the callbacks for its events.

    Owner, claims, stream id, attempt and metadata come from the record. The params were checked when the
    stream was created. Names that no client may set are removed here once more, because an older release may
    have made the record.
    """
    config: RunnableConfig = {"configurable": {**chain_params.own(params), **trusted(stage)}}
    if telemetry.is_on():
        from workers.langchain.model_spans import ModelSpans

        # first, because the other callbacks may end the call by an error
        callbacks = [ModelSpans(), *callbacks]
    if callbacks:
        config["callbacks"] = callbacks
    return config
