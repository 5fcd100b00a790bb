"""`demo`: a scripted answer that shows what a reader keeps when a connection is cut or a worker is killed.

No model is called. `make run` answers with this chain when no model is configured. For the same stream the
chain always yields the same text. So an attempt that continues after a worker's death repeats nothing and
needs no `reset`. Each stage is short. So the next attempt soon reaches new text: until then it runs the stage
again without sending events.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from gateway.settings import Settings
from workers.chains.asked import ASKED, question
from workers.chains.calculator import calculate
from workers.chains.registry import chain
from workers.each import Each

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable, RunnableConfig

SECONDS = 24.0  # length of the whole answer, unless the caller sets `params.seconds`
LONGEST_SECONDS = 120.0
SEARCH_SECONDS, TOOL_SECONDS = 1.2, 1.5  # parts of SECONDS; the pieces of text share the rest
MOST_SHOWN = 200  # most characters of the question that are shown
PARAMS = {"seconds": {"type": "number", "minimum": 0, "maximum": LONGEST_SECONDS}}
_PIECE = re.compile(r"\S+\s*")

PLAN = """\
**This answer is scripted.** No model wrote it, and it is the same whatever you ask. \
For a real model stop the gateway, set its key, and start it again from the same terminal:

```sh
export OPENAI_API_KEY=…
```

Then `chat` answers, without being asked for by name. \
Until then `chat` is answered by a small toy model, where one is installed. \
Azure needs `AZURE_OPENAI_ENDPOINT`, any other server `OPENAI_BASE_URL` (see `docs/settings.md`).

You asked: {question}

It takes about half a minute, so that there is time to break it:

1. look something up, and show where it stands;
2. let a tool work something out;
3. write three short sections, each of which is kept as soon as it is finished.

"""
FOUND = """\
### 1. What is promised

{count} passages were found; they are this answer's *sources*. In short: every event has an id. Whoever \
comes back with the last id that he saw gets the rest, no event twice and none missing.

"""
WORKED_OUT = """\
### 2. What that means in numbers

A reader who is away for 5 seconds misses about {missed} pieces of text at the pace of this answer \
(the tool worked it out: `{expression} = {missed}`). They wait in the log. Coming back costs one read of it.

"""
SECTIONS = {
    "Try to lose it": """\
### 3. Try to lose it

- Cut your connection: close the tab, switch the network off, press Ctrl-C in `curl`.
- Open this stream a second time, on a phone or in another tab: both show the same.
- Kill the worker that writes this. Another one goes on as soon as the lease of the dead one is over.
- Stop the gateway with Ctrl-C, and start it again.

""",
    "What happens then": """\
### 4. What happens then

| what fails | what a reader sees | what is done again |
|---|---|---|
| the reader's connection | the rest, from the event after the last one | nothing |
| the worker | a pause, as long as its lease ({lease:g} s) | the section that was not finished |
| the web process | the rest, from any other process | nothing |
| Redis, for a short time | a pause | nothing |

""",
    "From another terminal": """\
### 5. From another terminal

All of this stream, from its first event, is one command away:

```sh
curl -N {url}/stream/{stream_id} -H 'Accept: text/event-stream'
```

Put `-H 'Last-Event-ID: …'` behind it, with the id of an event, and only what comes after it is sent. \
That was the whole script: ask again, and break it earlier.
""",
}


@chain(
    "demo",
    stages=("plan", "search", "work_out", "sections"),
    input=ASKED,
    params=PARAMS,
    deployment="scripted",
)
def demo(settings: Settings) -> Mapping[str, Runnable[Any, Any] | Each]:
    """Create four stages. The last stage runs once for each section."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{settings.port or 7071}"
    passages, calculator = _retriever(), _calculator()

    async def plan(given: Any, config: RunnableConfig) -> AsyncIterator[str]:
        yield PLAN.format(question=_quoted(question(given["input"])))

    async def search(_: Any, config: RunnableConfig) -> AsyncIterator[str]:
        await asyncio.sleep(SEARCH_SECONDS * _pace(config))
        found = await passages.ainvoke("what is promised to a reader", config)
        yield FOUND.format(count=len(found))

    async def work_out(_: Any, config: RunnableConfig) -> AsyncIterator[str]:
        expression = f"5 * {round(1 / PIECE_SECONDS)}"
        missed = await calculator.ainvoke({"expression": expression}, config)
        yield WORKED_OUT.format(missed=missed, expression=expression)

    async def section(given: Any, config: RunnableConfig) -> AsyncIterator[str]:
        stream_id = config.get("configurable", {}).get("holdfast_stream_id", "ID")
        yield SECTIONS[given["item"]].format(url=url, stream_id=stream_id, lease=settings.lease)

    return {
        "plan": _stage(plan),
        "search": _stage(search),
        "work_out": _stage(work_out),
        "sections": Each(_stage(section), lambda given: list(SECTIONS)),
    }


def _stage(texts: Callable[[Any, RunnableConfig], AsyncIterator[str]]) -> Runnable[Any, Any]:
    """Return a stage that yields these texts word by word, as a model does."""
    from langchain_core.runnables import RunnableGenerator

    async def say(inputs: AsyncIterator[Any], config: RunnableConfig) -> AsyncIterator[str]:
        async for given in inputs:
            async for text in texts(given, config):
                due = monotonic()
                for piece in _pieces(text):
                    yield piece
                    due += PIECE_SECONDS * _pace(config)
                    await asyncio.sleep(max(0.0, due - monotonic()))

    made: Any = say  # LangChain passes the config to functions that have a parameter for it
    return RunnableGenerator(made)


def _pieces(text: str) -> Sequence[str]:
    """Split the text into words, each with the spaces after it."""
    return _PIECE.findall(text)


PIECE_SECONDS = (SECONDS - SEARCH_SECONDS - TOOL_SECONDS) / sum(
    len(_pieces(text)) for text in (PLAN, FOUND, WORKED_OUT, *SECTIONS.values())
)


def _pace(config: RunnableConfig) -> float:
    """Return the factor by which all pauses are multiplied."""
    return float(config.get("configurable", {}).get("seconds", SECONDS)) / SECONDS


def _quoted(asked: str) -> str:
    """Return the question as one line of code, so that its own markdown has no effect."""
    line = " ".join(asked.split()).replace("`", "'")
    return f"`{line[:MOST_SHOWN] + ('…' if len(line) > MOST_SHOWN else '') or '…'}`"


def _calculator() -> Any:
    from langchain_core.runnables.config import ensure_config
    from langchain_core.tools import tool

    @tool
    async def calculator(expression: str) -> str:
        """Work out an arithmetic expression."""
        await asyncio.sleep(TOOL_SECONDS * _pace(ensure_config()))
        return calculate(expression)

    return calculator


def _retriever() -> Any:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever

    class Passages(BaseRetriever):
        """A retriever that always returns the same passages of this product's documentation."""

        async def _aget_relevant_documents(
            self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
        ) -> list[Document]:
            return [
                Document(text, id=f"{source}:{number}", metadata={"source": source, "title": title})
                for number, (source, title, text) in enumerate(PASSAGES)
            ]

        def _get_relevant_documents(
            self, query: str, *, run_manager: CallbackManagerForRetrieverRun
        ) -> list[Document]:
            raise TypeError("this search is async: ainvoke it")

    return Passages()


PASSAGES = (
    (
        "docs/protocol.md",
        "Protocol",
        "An event's id is the place in the log at which it begins. A client gives the last id back, as "
        "Last-Event-ID, and gets what comes after it.",
    ),
    (
        "docs/reliability.md",
        "Reliability",
        "A worker holds its job by a lease. When the worker dies, another one takes the job and repeats "
        "nothing that already stands in the log.",
    ),
    (
        "docs/chains.md",
        "Chains",
        "A stage's result is its checkpoint. It is kept in the very append that writes the stage's end. A "
        "finished stage is not run again.",
    ),
)
