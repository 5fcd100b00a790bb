"""What LangChain streams, as events, each handed to `emit`, which waits while the store is behind.

One rule (docs/chains.md, One rule): what readers get is what the object itself yields, and the result is
what `ainvoke` gives. Text comes by `astream` from chat models and sequences: it costs a quarter less per
chunk than `astream_events`. What it hides (tools, documents, usage behind a parser) comes by a callback of
ours, `inside`, which costs nothing per token. Of a compiled graph `astream` gives states and no tokens, so
there the callback brings the tokens too, by LangGraph's own handler (`nodes`).
`astream_events` and LangGraph's `messages` put a queue without a bound behind their callbacks: a model faster
than the store would fill it. Ours awaits the writer, so such a model is slowed.
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
    """Run a stage to its end; the outcome is complete then.

    Raises what the chain raises, and what `emit` raises, whatever the chain makes of it. Cancelled, it ends
    the chain.
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
    """Which of a stage's published events its Runnable will not say again: those before its checkpoint."""
    if not published or not shape.is_graph(runnable):
        return set()
    return await graph.standing_of(runnable, params, stage, published)
