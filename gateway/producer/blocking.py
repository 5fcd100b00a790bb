"""The producer for code without an event loop: the same methods without `await`, for any thread.

    with SyncProducer.from_env() as producer:
        stream = producer.open(chain="report", key=job)
        with stream.write() as out:
            out.text("Hello")
        stream.done()

An event loop in its own thread does the work. It renews the lease while the code of a block makes no calls. A
block in a thread cannot be interrupted. If its stream was cancelled, its next call raises the exception.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from gateway.producer.out import Out
from gateway.producer.producer import Producer
from gateway.producer.stream import ProducerStream
from gateway.settings import Settings

T = TypeVar("T")


class SyncProducer:
    """The same as Producer, without `await`: `with SyncProducer.from_env() as producer`."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError if REDIS_URL is not set."""
        self._producer = Producer(settings, interrupts=False)
        self._loop = _Loop()

    @classmethod
    def from_env(cls) -> Self:
        """Does the same as Producer.from_env."""
        return cls(Settings.from_env())

    def __enter__(self) -> Self:
        self._loop.start()
        try:
            self._loop.run(self._producer.__aenter__())
        except BaseException:
            self._loop.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._loop.run(self._producer.__aexit__(kind, error, trace))
        finally:
            self._loop.stop()

    def open(
        self,
        *,
        chain: str,
        stages: Sequence[str] = (),
        owner: str = "",
        key: str = "",
        metadata: Mapping[str, Any] | None = None,
        webhook: Mapping[str, Any] | None = None,
    ) -> SyncProducerStream:
        """Does the same as Producer.open."""
        opening = self._producer.open(
            chain=chain, stages=stages, owner=owner, key=key, metadata=metadata, webhook=webhook
        )
        return SyncProducerStream(self._loop.run(opening), self._loop)


class SyncProducerStream:
    """The same as ProducerStream, without `await`."""

    def __init__(self, stream: ProducerStream, loop: _Loop) -> None:
        self._stream = stream
        self._loop = loop
        self.id, self.chain, self.stages = stream.id, stream.chain, stream.stages

    @property
    def status(self) -> str:
        """The same as ProducerStream.status."""
        return self._stream.status

    @contextmanager
    def write(self, stage: str = "") -> Iterator[SyncOut]:
        """Does the same as ProducerStream.write, but does not interrupt a silent block."""
        writing = self._stream.write(stage)
        out = self._loop.run(writing.__aenter__())
        try:
            yield SyncOut(out, self._loop)
        except BaseException as error:
            self._loop.run(writing.__aexit__(type(error), error, error.__traceback__))
            raise
        self._loop.run(writing.__aexit__(None, None, None))

    def done(self, *, finish_reason: str = "stop", usage: Mapping[str, int] | None = None) -> None:
        """Does the same as ProducerStream.done."""
        self._loop.run(self._stream.done(finish_reason=finish_reason, usage=usage))

    def failed(self, code: str, message: str = "", *, retryable: bool = False) -> None:
        """Does the same as ProducerStream.failed."""
        self._loop.run(self._stream.failed(code, message, retryable=retryable))


class SyncOut:
    """The same as Out, without `await`. Several threads may call its methods at once."""

    def __init__(self, out: Out, loop: _Loop) -> None:
        self._out = out
        self._loop = loop
        self.stage, self.finished = out.stage, out.finished

    @property
    def result(self) -> Any:
        """The same as Out.result."""
        return self._out.result

    @result.setter
    def result(self, value: Any) -> None:
        self._out.result = value

    def text(self, text: str) -> None:
        """Does the same as Out.text."""
        self._loop.run(self._out.text(text))

    def custom(self, name: str, data: Any) -> None:
        """Does the same as Out.custom."""
        self._loop.run(self._out.custom(name, data))

    def tool(self, name: str, call_id: str, **told: Any) -> None:
        """Does the same as Out.tool."""
        self._loop.run(self._out.tool(name, call_id, **told))


class _Loop:
    """An event loop in its own daemon thread, which ends with the process."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if it was already started."""
        if self._thread is not None:
            raise RuntimeError("a producer is entered once")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="producer", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the loop, and return its result or raise its exception.

        If the calling thread is interrupted, `work` is cancelled.
        """
        if self._loop is None or threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a producer works within its own `with`, and not in its own thread")
        told = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return told.result()
        except BaseException:
            told.cancel()
            raise

    def stop(self) -> None:
        """Stop the loop, and wait for the end of its thread."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = None
        asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
