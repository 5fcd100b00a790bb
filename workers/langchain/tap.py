"""The way of a stage's events to the writer, one at a time, from whatever thread they come.

LangChain awaits a callback before it goes on, and ours awaits the writer: nothing is buffered. Code that is
not async calls it from another thread, in a loop of that moment, which waits while 256 KiB are on their way.
Where that very code keeps our loop from running, nobody can make room: then all is taken, up to a whole log.
So is what code in our loop says without awaiting us (LangGraph's `StreamWriter`).
LangChain drops what a callback raises there, so it is kept, and raised where the stage ends.
Invariants: events go out one at a time, in the order in which they came; one that is lost fails the stage.
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
ON_THEIR_WAY_BYTES = 256 * 1024
STANDSTILL_SECONDS = 0.5  # a loop that runs nothing for so long is kept from it by whoever waits
OVER = "the stage is over"


class Tap(AsyncCallbackHandler):
    """One stage's events, in turn; used within `listening`."""

    raise_error = True
    run_inline = True

    def __init__(self, emit: Emit, stage: Stage) -> None:
        self._hand_on = emit
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
        self._halves = Halves()
        self.models = Models()

    @property
    def callbacks(self) -> list[BaseCallbackHandler]:
        """What a run is configured with: the calls of models are judged before anybody else hears of them."""
        return [self.models, self]

    @asynccontextmanager
    async def listening(self, outcome: Outcome) -> AsyncIterator[Outcome]:
        """The time of the stage: an outcome of its chunks, added up with what models' calls have said.

        Raises what `emit` has raised, whatever the chain has made of it.
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
        if self._error is not None:
            raise self._error

    def _add_up(self, outcome: Outcome, own: Outcome) -> None:
        if own.usage and not self.models.usage:  # chunks have told it, and no call of a model was heard of
            self._stage.bill.add("", own.usage)
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

    def emit_now(self, event: Event) -> None:
        """Hand an event on without waiting, after all that came before; in another thread wait for room.

        Raises what has failed, and TooLong where more than a whole log is on its way.
        """
        try:
            in_ours = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            in_ours = False
        self._send(event, waits=not in_ours)

    def fail(self, error: Exception) -> None:
        """Have the stage fail at its end, whatever the chain makes of this."""
        self._error = self._error or error

    async def flush(self) -> None:
        """Hand on what other threads have sent."""
        async with self._turn:
            await self._drain()

    async def _end(self) -> None:
        """Hand on what other threads have sent, and the halves of characters that have stayed alone."""
        async with self._turn:
            await self._drain()
            for event in self._halves.rest():
                await self._put_whole(event)

    def _send(self, event: Event, *, waits: bool = True) -> None:
        """Take an event of another thread's, which waits for room as long as our loop can make some.

        Raises what has failed, which nobody may hear of here.
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
        if not self._halves.concern(event):
            await self._put_whole(event)
            return
        for whole in self._halves.joined(event):
            await self._put_whole(whole)

    async def _put_whole(self, event: Event) -> None:
        if self._is_over:  # a task that the chain has left behind: another try may be under way
            raise RuntimeError(OVER)
        if self._error is None:
            try:
                await self._hand_on(event)
            except Exception as error:
                self._error = self._error or error
        if self._error is not None:
            raise self._error
