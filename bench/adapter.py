"""Measure the cost of one chunk in the adapter against the bare `astream` of the same chain, in one run.

The model yields at once, so only the work of LangChain and of the adapter is timed. The events are dropped.
For a graph the bare side is its `messages` mode. The figures are CPU time of this process, so the work of
other processes is not included.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from time import process_time
from typing import Any

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate
from langgraph.graph import START, StateGraph

from gateway.protocol import Event
from workers import langchain

CHUNKS, ROUNDS = 2000, 9
WORDS = " ".join(["w"] * (CHUNKS // 2))


class Quick(GenericFakeChatModel):
    """A model that streams in the event loop. Its base class would use a thread for each chunk."""

    async def _astream(self, *given: Any, **options: Any) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(*given):
            yield chunk


def model() -> Quick:
    """Return a model that answers with the same words each time, one word in each chunk."""
    return Quick(messages=iter(lambda: AIMessage(WORDS), None))


async def _node(state: dict[str, Any]) -> dict[str, Any]:
    return {"text": (await model().ainvoke("q")).content}


def graph() -> Any:
    """Return a graph with one node that calls the model."""
    builder: Any = StateGraph(dict)
    builder.add_node("node", _node)
    builder.add_edge(START, "node")
    return builder.compile()


def chains() -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """Return what is measured: each chain, its input, and the options for the bare `astream`."""
    sequence = ChatPromptTemplate.from_template("{topic}") | model() | StrOutputParser()
    return {
        "chat model": (model(), "q", {}),
        "prompt, model and parser": (sequence, {"topic": "q"}, {}),
        "graph": (graph(), {"text": ""}, {"stream_mode": "messages"}),
    }


async def bare(chain: Any, given: Any, options: dict[str, Any]) -> None:
    """Read every chunk and drop it."""
    chunks: AsyncIterator[Any] = chain.astream(given, **options)
    async for _ in chunks:
        pass


async def adapted(chain: Any, given: Any, _: dict[str, Any]) -> None:
    """Let the adapter convert every chunk to an event, and drop the event."""

    async def emit(event: Event) -> None:
        pass

    await langchain.stream(chain, given, {}, emit, langchain.Stage("s", "d", "id"), langchain.Outcome())


async def _micros(run: Callable[..., Awaitable[None]], *given: Any) -> float:
    began = process_time()
    await run(*given)
    return (process_time() - began) / CHUNKS * 1e6


async def measure() -> list[str]:
    """Return the rows of the table: microseconds for each chunk, as medians of the rounds. The sides take
    turns."""
    lines = ["| µs a chunk | bare | adapter | more |", "|---|---|---|---|"]
    for name, given in chains().items():
        pairs = [(await _micros(bare, *given), await _micros(adapted, *given)) for _ in range(ROUNDS)]
        theirs, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        spread = sorted(b - a for a, b in pairs)
        lines.append(
            f"| {name} | {theirs:.1f} | {ours:.1f} | {statistics.median(spread):+.1f} "
            f"({spread[0]:+.1f} to {spread[-1]:+.1f}) |"
        )
    return lines


async def main() -> None:
    """Print only this table."""
    print("\n".join(await measure()))


if __name__ == "__main__":
    asyncio.run(main())
