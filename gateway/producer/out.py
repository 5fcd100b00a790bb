"""One stage of a stream while its producer writes it.

When a call returns, the store has its event. If the claim ends while the code of a block makes no call, the
block is interrupted: its task is cancelled. At the end of the block the cancellation becomes the exception
that tells why, as with `asyncio.timeout`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gateway.client.events import GatewayError
from gateway.producer import said
from gateway.producer.course import Course
from gateway.producer.hold import Hold, refused
from gateway.protocol import Event
from gateway.protocol.errors import HoldfastError
from gateway.runtime.loops import within

if TYPE_CHECKING:
    from gateway.producer.stream import ProducerStream

_NOT_GIVEN: Any = object()  # marks an argument that was not given, because a value may be None


class Out:
    """The methods by which a producer writes one stage.

    Every method raises StreamTaken, StreamCancelled, StreamEnded, Unreachable or Refused. Another thread may
    call it in its own event loop. Then it raises RuntimeError if the event loop of the stream is blocked.
    """

    def __init__(self, chain: str, stage: str, hold: Hold, course: Course) -> None:
        self._chain = chain
        self._hold = hold
        self._course = course
        self._pieces: list[str] = []
        self._result: Any = _NOT_GIVEN
        self._callers: set[asyncio.Task[Any] | None] = set()
        self._has_told = False
        self._loop = asyncio.get_running_loop()
        self.stage = stage
        self.finished = course.passes_over
        self.closed = False
        if self.finished:
            self._result = course.result(stage)

    @property
    def result(self) -> Any:
        """The result of the stage as JSON: the value that was set, or the text of the stage.

        For a stage that an earlier producer finished, it is the result of that stage.
        """
        return "".join(self._pieces) if self._result is _NOT_GIVEN else self._result

    @result.setter
    def result(self, value: Any) -> None:
        if not self.finished:
            self._result = value

    async def text(self, text: str) -> None:
        """Write a piece of text. The log contains it when this returns.

        With an empty text only check that the claim is still valid.
        """
        event = self._made(lambda: said.text(text, chain=self._chain, stage=self.stage))
        if text:
            await self._say(event, text)
        else:
            await self._within(self._ask)

    async def custom(self, name: str, data: Any) -> None:
        """Write a `custom` event. The producer defines its name and its data, which must be JSON."""
        await self._say(self._made(lambda: said.custom(name, data, stage=self.stage)))

    async def tool(
        self,
        name: str,
        call_id: str,
        *,
        input: Any = _NOT_GIVEN,
        output: Any = _NOT_GIVEN,
        failed: bool = False,
    ) -> None:
        """Write the start of a tool call (with `input`), or its end (with `output` or `failed`)."""
        if (input is not _NOT_GIVEN) == (output is not _NOT_GIVEN or failed):
            raise ValueError("a tool's call is told with its input, or with its output or failed=True")
        begins = input is not _NOT_GIVEN
        state = "started" if begins else "failed" if failed else "finished"
        value = input if begins else None if output is _NOT_GIVEN else output
        await self._say(self._made(lambda: said.tool(name, call_id, state, value, stage=self.stage)))

    def tells(self, task: asyncio.Task[Any] | None) -> bool:
        """Return whether this task need not be interrupted.

        It waits in a method of this class, or such a method has already raised the exception for the end of
        the claim.
        """
        return self._has_told or task in self._callers

    async def end(self) -> None:
        """Finish the stage at the end of the block. The end and the result are written in one step."""
        with self._calling():
            events = self._course.end()
            try:
                fields = self._course.finished(self.result, self._hold.most_results)
            except HoldfastError as error:
                raise refused(error) from None
            await self._hold.write(*events, fields=fields)

    def _made(self, make: Callable[[], Event]) -> Event:
        if self.closed:
            raise RuntimeError("the block in which this stage was written is over")
        try:
            event = make()
            self._hold.check(event)
        except HoldfastError as error:
            raise refused(error) from None
        return event

    async def _within(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await within(self._loop, work, self._hold.patience)

    async def _ask(self) -> None:
        with self._calling():
            await self._hold.write()

    async def _say(self, event: Event, text: str = "") -> None:
        await self._within(partial(self._take, event, text))

    async def _take(self, event: Event, text: str) -> None:
        with self._calling():
            if self.finished:
                await self._hold.alive()
                return
            if text:
                self._pieces.append(text)
            events = self._course.take(event)
            if events:
                await self._hold.write(*events)
            else:
                self._hold.writer.progressed()
                await self._hold.alive()

    @contextmanager
    def _calling(self) -> Iterator[None]:
        task = asyncio.current_task()
        self._callers.add(task)
        try:
            yield
        except GatewayError:
            self._has_told |= self._hold.writing.done()
            raise
        finally:
            self._callers.discard(task)


class Writing:
    """The context manager that `stream.write(…)` returns.

    An exception in the block leaves the stage and the stream open, so that another attempt can continue.
    """

    def __init__(self, stream: ProducerStream, stage: str, *, interrupts: bool) -> None:
        self._stream = stream
        self._stage = stage
        self._interrupts = interrupts
        self._out: Out | None = None
        self._hold: Hold | None = None
        self._owner: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._interrupted = False

    async def __aenter__(self) -> Out:
        if self._hold is not None:
            raise RuntimeError("a block is entered once")
        hold = self._hold = await self._stream.hold()
        try:
            course = await self._stream.course(hold, self._stage)
            if events := course.begin(self._stage):
                await hold.write(*events)
        except HoldfastError as error:
            await self._stream.release(hold)
            raise refused(error) from None
        except BaseException:
            await self._stream.release(hold)
            raise
        self._out = Out(self._stream.chain, self._stage, hold, course)
        if self._interrupts:
            self._owner = asyncio.current_task()
            assert self._owner is not None
            self._cancelling = self._owner.cancelling()
            hold.writing.add_done_callback(self._interrupt)
        return self._out

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._hold is not None
        assert self._out is not None
        hold, out = self._hold, self._out
        hold.writing.remove_done_callback(self._interrupt)
        try:
            if self._interrupted:
                assert self._owner is not None
                ours = self._owner.uncancel() <= self._cancelling
                if ours and (kind is None or issubclass(kind, asyncio.CancelledError)):
                    raise await hold.error() from error
            if kind is None:
                await out.end()
        finally:
            out.closed = True
            await self._stream.release(hold)

    def _interrupt(self, _: asyncio.Task[str]) -> None:
        """Handle the end of the claim.

        If the task waits in a method of `Out`, that method raises the exception. Otherwise the task is
        cancelled.
        """
        if self._owner is not None and self._out is not None and not self._out.tells(self._owner):
            self._interrupted = True
            self._owner.cancel()
