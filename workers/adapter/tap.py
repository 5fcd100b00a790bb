"""What happens inside of a chain, from LangChain's callbacks: tools, documents, custom events, usage.

LangChain awaits a callback before it goes on, and ours awaits the writer: nothing is buffered. Code that is
not async calls it from another thread, in a loop of that moment, which waits while 256 KiB are on their way.
Where that very code keeps our loop from running, nobody can make room: then all is taken, up to a whole log.
LangChain drops what a callback raises there, so it is kept, and raised where the stage ends.
Invariants: events go out one at a time, in the order in which they came; one that is lost fails the stage.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from threading import Condition
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import BaseMessage

from gateway import sse
from gateway.protocol import Event
from workers.adapter.calls import Models
from workers.adapter.chunks import Emit, Outcome, Stage
from workers.adapter.values import clean, plain
from workers.writer import TooLong

if TYPE_CHECKING:
    from langchain_core.documents import Document

_log = logging.getLogger("holdfast.tap")
ON_THEIR_WAY_BYTES = 256 * 1024
STANDSTILL_SECONDS = 0.5  # a loop that runs nothing for so long is kept from it by whoever waits
OVER = "the stage is over"
MOST_DOCUMENTS = 50
EXCERPT_CHARACTERS = 500


class Tap(AsyncCallbackHandler):
    """One stage's callback; used within `listening`."""

    raise_error = True
    run_inline = True

    def __init__(self, emit: Emit, stage: Stage) -> None:
        self._emit = emit
        self._stage = stage
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._waiting: deque[tuple[Event, int]] = deque()  # from other threads, each with its bytes
        self._waiting_bytes = 0
        self._room = Condition()  # guards the two above, and the three below
        self._beats = 0  # moments in which our loop was seen to run
        self._stood_at = -1  # the beat at which it was found to stand still
        self._is_over = False
        self._draining: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self.models = Models()
        self._calls: set[str] = set()  # of tools that the chain itself has run
        self._tools: dict[UUID, tuple[str, str, Stage]] = {}
        self._searches: dict[UUID, Stage] = {}

    @property
    def callbacks(self) -> list[BaseCallbackHandler]:
        """What a run is configured with: the calls of models are judged before anybody else hears of them."""
        return [self.models, self]

    @property
    def ignore_llm(self) -> bool:
        """The pieces of a model's answer, and its end, are for `models` alone."""
        return True

    @asynccontextmanager
    async def listening(self, outcome: Outcome) -> AsyncIterator[Outcome]:
        """The time of the stage: an outcome of its chunks, added up with what models' calls have said.

        Raises what `emit` has raised, whatever the chain has made of it.
        """
        own = Outcome()
        try:
            yield own
            await self.flush()
        except Exception:
            if self._error is not None:
                raise self._error from None
            raise
        finally:
            with self._room:
                self._is_over = True
                self._room.notify_all()
            if self._draining is not None:
                self._draining.cancel()
            self._add_up(outcome, own)
        if self._error is not None:
            raise self._error

    def _add_up(self, outcome: Outcome, own: Outcome) -> None:
        for name, tokens in (self.models.usage or own.usage).items():
            outcome.usage[name] = outcome.usage.get(name, 0) + tokens
        said = own.finish_reason if own.finish_reason not in ("", "stop") else self.models.finish
        outcome.finish_reason = said or "stop"

    async def emit(self, event: Event) -> None:
        """Hand an event on, after all that came before."""
        if asyncio.get_running_loop() is not self._loop:
            self._send(event)
            return
        async with self._turn:
            if self._waiting:
                await self._drain()
            await self._put(event)

    async def call(self, call: Mapping[str, Any]) -> None:
        """A tool call that a model has asked for, and that the client is to run."""
        if call.get("id") not in self._calls:
            name, call_id = clean(call["name"]), str(call.get("id") or "")
            await self.emit(self._stage.tool(name, call_id, "started", plain(call["args"])))

    async def flush(self) -> None:
        """Hand on what other threads have sent."""
        async with self._turn:
            await self._drain()

    def _send(self, event: Event) -> None:
        """Take an event of another thread's, which waits for room as long as our loop can make some.

        Raises what has failed, which nobody may hear of here.
        """
        size = len(sse.encode(event, 0, ""))
        with self._room:
            self._wait_for_room(size)
            if self._error is None and self._waiting_bytes + size > self._stage.max_log:
                self._error = TooLong()
            if self._error is not None:
                raise self._error
            self._waiting.append((event, size))
            self._waiting_bytes += size
        self._loop.call_soon_threadsafe(self._wake)

    def _wait_for_room(self, size: int) -> None:
        """Without a bound in time: the writer has one, and a stage's end ends this too."""
        while self._waiting and self._waiting_bytes + size > ON_THEIR_WAY_BYTES:
            if self._error is not None or self._is_over or self._stood_at == self._beats:
                break
            beats = self._beats
            self._loop.call_soon_threadsafe(self._beat)
            self._room.wait(STANDSTILL_SECONDS)
            if beats == self._beats:
                self._stood_at = beats
                _log.warning("stage %s: code that is not async keeps the event loop", self._stage.name)
        if self._is_over:
            raise RuntimeError(OVER)

    def _beat(self) -> None:
        with self._room:
            self._beats += 1

    def _wake(self) -> None:
        self._beat()
        if self._draining is None or self._draining.done():
            self._draining = self._loop.create_task(self._drain_apart(), name="tap")

    async def _drain_apart(self) -> None:
        with suppress(Exception):  # it is kept, and raised where the stage ends
            await self.flush()

    async def _drain(self) -> None:
        while self._waiting:
            with self._room:
                event, size = self._waiting.popleft()
                self._waiting_bytes -= size
                self._beats += 1
                self._room.notify_all()
            await self._put(event)

    async def _put(self, event: Event) -> None:
        if self._is_over:  # a task that the chain has left behind: another try may be under way
            raise RuntimeError(OVER)
        if self._error is None:
            try:
                await self._emit(event)
            except Exception as error:
                self._error = self._error or error
        if self._error is not None:
            raise self._error

    async def on_tool_start(
        self, serialized: dict[str, Any], input_str: str, *, run_id: UUID, **given: Any
    ) -> None:
        """A tool is called, with its whole arguments."""
        name = clean(given.get("name") or (serialized or {}).get("name") or "tool")
        call_id = str(given.get("tool_call_id") or run_id)
        stage = self.stage_of(given.get("metadata"))
        self._calls.add(call_id)
        self._tools[run_id] = (name, call_id, stage)
        arguments = given.get("inputs")
        said = input_str if arguments is None else plain(arguments)
        await self.emit(stage.tool(name, call_id, "started", said))

    async def on_tool_end(self, output: Any, *, run_id: UUID, **given: Any) -> None:
        """A tool has answered."""
        name, call_id, stage = self._tools.pop(run_id)
        failed = getattr(output, "status", "") == "error"
        state = "failed" if failed else "finished"
        said = output.content if isinstance(output, BaseMessage) else plain(output)
        await self.emit(stage.tool(name, call_id, state, said))

    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """A tool has raised; its words may quote a secret and go nowhere."""
        name, call_id, stage = self._tools.pop(run_id)
        if not any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__):  # an interrupt is none
            await self.emit(stage.tool(name, call_id, "failed", "The tool failed."))

    async def on_retriever_start(self, serialized: Any, query: str, *, run_id: UUID, **given: Any) -> None:
        """Documents are sought."""
        self._searches[run_id] = self.stage_of(given.get("metadata"))

    async def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **given: Any) -> None:
        """Documents were found."""
        found = [source_of(document) for document in documents[:MOST_DOCUMENTS]]
        await self.emit(self._searches.pop(run_id, self._stage).custom("sources", {"documents": found}))

    async def on_retriever_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """They were not."""
        self._searches.pop(run_id, None)

    async def on_custom_event(self, name: str, data: Any, **given: Any) -> None:
        """The chain has dispatched an event of its own."""
        await self.emit(self.stage_of(given.get("metadata")).custom(clean(name), data))

    def stage_of(self, metadata: Mapping[str, Any] | None) -> Stage:
        """The stage that a run of LangChain's belongs to."""
        return self._stage


def source_of(document: Document) -> dict[str, Any]:
    """A document as readers get it: where it is from, and an excerpt."""
    metadata = document.metadata
    source = metadata.get("source")
    known: dict[str, Any] = {
        "id": document.id,
        "title": str(metadata.get("title") or source or "")[:EXCERPT_CHARACTERS],
        "source": str(source or "")[:EXCERPT_CHARACTERS],
        "text": document.page_content[:EXCERPT_CHARACTERS],
    }
    score = metadata.get("score")
    return known | ({"score": score} if isinstance(score, int | float) else {})
