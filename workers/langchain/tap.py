"""Pass the events of a stage on to the writer, one at a time, from any thread.

LangChain awaits a callback before it continues, and this callback awaits the writer. So nothing is buffered.
Code that is not async calls the callback from another thread. That thread waits while more than 256 KiB wait
for the writer.

Two kinds of events are accepted without waiting, up to the size of a whole log. The first are events of code
that blocks the event loop: while it blocks, the writer cannot run. The second are events of code in the event
loop that does not await the callback (LangGraph's `StreamWriter`).

LangChain drops an exception that such a callback raises. So the exception is stored, and raised when the
stage ends.

Invariants: events are passed on one at a time, in the order in which they came. If an event is lost, the
stage fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from threading import Condition

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler

from gateway.protocol import Event, sse
from gateway.writing.writer import TooLong
from workers.langchain.calls import Models
from workers.langchain.halves import Halves
from workers.langchain.stage import Emit, Outcome, Stage

_log = logging.getLogger("holdfast.tap")
ON_THEIR_WAY_BYTES = 256 * 1024  # most bytes that wait for the writer before other threads wait
STANDSTILL_SECONDS = (
    0.5  # an event loop that runs nothing for this time is blocked by the code that waits for it
)
OVER = "the stage is over"


class Tap(AsyncCallbackHandler):
    """The events of one stage. The callback works only inside the `with` block of `listening`."""

    raise_error = True
    run_inline = True

    def __init__(self, emit: Emit, stage: Stage) -> None:
        self._hand_on = emit
        self._stage = stage
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._waiting: deque[tuple[Event, int]] = (
            deque()
        )  # events of other threads, each with its size in bytes
        self._waiting_bytes = 0
        self._room = Condition()  # guards the two fields above and the three below
        self._beats = 0  # counts the times at which the event loop ran
        self._stood_at = -1  # the value of `_beats` at which the loop was found blocked
        self._is_over = False
        self._draining: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._halves = Halves()
        self.models = Models()

    @property
    def callbacks(self) -> list[BaseCallbackHandler]:
        """The callbacks of a run. `models` is the first, so it judges a model's call before the others."""
        return [self.models, self]

    @asynccontextmanager
    async def listening(self, outcome: Outcome) -> AsyncIterator[Outcome]:
        """Run the stage inside the `with` block. Yields the outcome of its chunks.

        At the end, that outcome is added to the outcome of the models' calls. Raises the exception of `emit`,
        even if the chain has caught it.
        """
        own = Outcome()
        try:
            yield own
            await self._end()
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
            self.models.let_go()
        if self._error is not None:
            raise self._error

    def _add_up(self, outcome: Outcome, own: Outcome) -> None:
        if own.usage and not self.models.usage:  # only the chunks had usage, because no model call was seen
            self._stage.bill.add("", own.usage)
        for name, tokens in (self.models.usage or own.usage).items():
            outcome.usage[name] = outcome.usage.get(name, 0) + tokens
        said = own.finish_reason if own.finish_reason not in ("", "stop") else self.models.finish
        outcome.finish_reason = said or "stop"

    async def emit(self, event: Event) -> None:
        """Pass an event on, after all earlier events."""
        if asyncio.get_running_loop() is not self._loop:
            self._send(event)
            return
        await self._turn.acquire()  # `async with` would make two coroutines more for each chunk
        try:
            if self._waiting:
                await self._drain()
            if self._halves.concern(event):
                await self._put(event)
            else:
                await self._put_whole(event)
        finally:
            self._turn.release()

    def emit_now(self, event: Event) -> None:
        """Pass an event on after all earlier events, without awaiting the writer.

        Any thread except the event loop's waits for space. Raises the exception of an earlier failure. Raises
        TooLong if more than a whole log waits.
        """
        try:
            in_ours = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            in_ours = False
        self._send(event, waits=not in_ours)

    def emit_unbound(self, event: Event) -> None:
        """Do the same as `emit_now`, but never wait for space. For callers that hold a lock."""
        self._send(event, waits=False)

    def fail(self, error: Exception) -> None:
        """Make the stage fail at its end, even if the chain catches the error."""
        self._error = self._error or error

    async def flush(self) -> None:
        """Pass on all events that other threads have sent."""
        async with self._turn:
            await self._drain()

    async def stands(self) -> None:
        """Wait until all events so far are in the log. Raises RuntimeError if this attempt has ended.

        For code that blocks the event loop, nothing can be written. So this does not wait for it.
        """
        if asyncio.get_running_loop() is self._loop:
            await self._stands()
            return
        written = asyncio.run_coroutine_threadsafe(self._stands(), self._loop)
        while True:
            beats = self._beats
            self._loop.call_soon_threadsafe(self._beat)
            try:
                written.result(STANDSTILL_SECONDS)
            except TimeoutError:
                if beats != self._beats:
                    continue
                _log.warning("stage %s: code that is not async keeps the event loop", self._stage.name)
            return

    async def _stands(self) -> None:
        await self.flush()
        if not await self._stage.stands():
            raise RuntimeError(OVER)

    async def _end(self) -> None:
        """Pass on all events of other threads, and the half characters whose other half never came."""
        async with self._turn:
            await self._drain()
            for event in self._halves.rest():
                await self._put_whole(event)

    def _send(self, event: Event, *, waits: bool = True) -> None:
        """Accept an event of another thread. The thread waits for space while the event loop can make some.

        Raises the exception of an earlier failure, although the chain may drop it.
        """
        size = len(sse.encode(event, 0, ""))
        with self._room:
            if waits:
                self._wait_for_room(size)
            if self._is_over:
                raise RuntimeError(OVER)
            if self._error is None and self._waiting_bytes + size > self._stage.max_log:
                self._error = TooLong()
            if self._error is not None:
                raise self._error
            self._waiting.append((event, size))
            self._waiting_bytes += size
        self._loop.call_soon_threadsafe(self._wake)

    def _wait_for_room(self, size: int) -> None:
        """Wait for space.

        There is no time-out here: the writer has one, and the stage's end also ends the wait.
        """
        while self._waiting and self._waiting_bytes + size > ON_THEIR_WAY_BYTES:
            if self._error is not None or self._is_over or self._stood_at == self._beats:
                break
            beats = self._beats
            self._loop.call_soon_threadsafe(self._beat)
            self._room.wait(STANDSTILL_SECONDS)
            if beats == self._beats:
                self._stood_at = beats
                _log.warning("stage %s: code that is not async keeps the event loop", self._stage.name)

    def _beat(self) -> None:
        with self._room:
            self._beats += 1

    def _wake(self) -> None:
        self._beat()
        if self._draining is None or self._draining.done():
            self._draining = self._loop.create_task(self._drain_apart(), name="tap")

    async def _drain_apart(self) -> None:
        with suppress(Exception):  # the exception is stored, and raised when the stage ends
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
        if not self._halves.concern(event):
            await self._put_whole(event)
            return
        for whole in self._halves.joined(event):
            await self._put_whole(whole)

    async def _put_whole(self, event: Event) -> None:
        if self._is_over:  # a task of the chain still runs after the stage; another try may have begun
            raise RuntimeError(OVER)
        if self._error is None:
            try:
                await self._hand_on(event)
            except Exception as error:
                self._error = self._error or error
        if self._error is not None:
            raise self._error
