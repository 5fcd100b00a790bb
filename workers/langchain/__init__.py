"""Convert what LangChain streams to events.

Each event is passed to `emit`, which waits while the store is slow. One rule (docs/chains.md, One rule):
readers get what the Runnable itself yields, and the result is what `ainvoke` returns. For chat models and
sequences, text comes from `astream`: it costs a quarter less per chunk than `astream_events`. `astream` does
not show tools, documents, and usage behind a parser. These come from the callback `inside`, which costs
nothing per token. For a compiled graph `astream` yields states and no tokens. So there the callback also
provides the tokens, with LangGraph's own handler (`nodes`). `astream_events` and LangGraph's `messages` mode
have an unbounded queue after their callbacks: a model that is faster than the store would fill it. The
callback here awaits the writer, so such a model is slowed down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.protocol import Event
from workers.langchain import graph, shape
from workers.langchain.chunks import stream_chunks
from workers.langchain.configured import spare_models
from workers.langchain.content import text_of
from workers.langchain.keys import key_tools
from workers.langchain.stage import Emit, Outcome, Stage

__all__ = ["Emit", "Outcome", "Stage", "standing_of", "stream", "text_of"]


async def stream(
    runnable: Any,
    given: Any,
    params: Mapping[str, Any],
    emit: Emit,
    stage: Stage,
    outcome: Outcome,
    standing: Sequence[Event] = (),
) -> None:
    """Run a stage to its end. Then the outcome is complete.

    Raises the exceptions of the chain. Raises the exceptions of `emit`, even if the chain catches them.
    Cancelling this call ends the chain.
    """
    spare_models()
    key_tools()
    if shape.is_graph(runnable):
        await graph.stream_graph(runnable, given, params, emit, stage, outcome, standing)
    else:
        await stream_chunks(shape.streamable(runnable), given, params, emit, stage, outcome)


async def standing_of(
    runnable: Any, params: Mapping[str, Any], stage: Stage, published: Sequence[Event]
) -> set[int]:
    """Return the numbers of the published events that the stage's Runnable will not emit again.

    These are the events before its checkpoint.
    """
    if not published or not shape.is_graph(runnable):
        return set()
    return await graph.standing_of(runnable, params, stage, published)
