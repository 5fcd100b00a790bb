"""The producer for code without an event loop: the same without `await`, from any thread.

    with SyncProducer.from_env() as producer:
        stream = producer.open(chain="report", key=job)
        with stream.write() as out:
            out.text("Hello")
        stream.done()

An event loop in a thread of its own does the work. It renews the lease while a block is silent. A block in a
thread cannot be interrupted: that its stream was cancelled is told by its next call.
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
    """As Producer: `with SyncProducer.from_env() as producer`."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError where REDIS_URL is not set."""
        self._producer = Producer(settings, interrupts=False)
        self._loop = _Loop()

    @classmethod
    def from_env(cls) -> Self:
        """As Producer.from_env."""
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
        """As Producer.open."""
        opening = self._producer.open(
            chain=chain, stages=stages, owner=owner, key=key, metadata=metadata, webhook=webhook
        )
        return SyncProducerStream(self._loop.run(opening), self._loop)


class SyncProducerStream:
    """As ProducerStream."""

    def __init__(self, stream: ProducerStream, loop: _Loop) -> None:
        self._stream = stream
        self._loop = loop
        self.id, self.chain, self.stages = stream.id, stream.chain, stream.stages

    @property
    def status(self) -> str:
        """As ProducerStream.status."""
        return self._stream.status

    @contextmanager
    def write(self, stage: str = "") -> Iterator[SyncOut]:
        """As ProducerStream.write, but that a silent block is not interrupted."""
        writing = self._stream.write(stage)
        out = self._loop.run(writing.__aenter__())
        try:
            yield SyncOut(out, self._loop)
        except BaseException as error:
            self._loop.run(writing.__aexit__(type(error), error, error.__traceback__))
            raise
        self._loop.run(writing.__aexit__(None, None, None))

    def done(self, *, finish_reason: str = "stop", usage: Mapping[str, int] | None = None) -> None:
        """As ProducerStream.done."""
        self._loop.run(self._stream.done(finish_reason=finish_reason, usage=usage))

    def failed(self, code: str, message: str = "", *, retryable: bool = False) -> None:
        """As ProducerStream.failed."""
        self._loop.run(self._stream.failed(code, message, retryable=retryable))


class SyncOut:
    """As Out. Several threads may speak at once."""

    def __init__(self, out: Out, loop: _Loop) -> None:
        self._out = out
        self._loop = loop
        self.stage, self.finished = out.stage, out.finished

    @property
    def result(self) -> Any:
        """As Out.result."""
        return self._out.result

    @result.setter
    def result(self, value: Any) -> None:
        self._out.result = value

    def text(self, text: str) -> None:
        """As Out.text."""
        self._loop.run(self._out.text(text))

    def custom(self, name: str, data: Any) -> None:
        """As Out.custom."""
        self._loop.run(self._out.custom(name, data))

    def tool(self, name: str, call_id: str, **told: Any) -> None:
        """As Out.tool."""
        self._loop.run(self._out.tool(name, call_id, **told))


class _Loop:
    """An event loop in a thread of its own, which does not outlive the process."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. Raises RuntimeError where it has begun."""
        if self._thread is not None:
            raise RuntimeError("a producer is entered once")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="producer", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` answers or raises. A caller that is interrupted takes its work back."""
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
        """End, and wait for the thread."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = None
        asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
