"""A real stream and its model: each verb here is done to both, and the answers are compared."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from hypothesis.stateful import RuleBasedStateMachine

from gateway import protocol, sse
from gateway.connection import Connection
from gateway.log import Log
from tests.model import streams
from tests.model.reader import Reader
from tests.model.real import Image, Real
from tests.model.store import Store

FINALS = {"done": streams.DONE, "failed": protocol.failed("c", "m", retryable=False)}
T = TypeVar("T")


@dataclass(slots=True)
class Worker:
    """One claim's token, where it writes next, and everything that it has sent: position → frame."""

    token: str
    end: int
    memory: dict[int, bytes] = field(default_factory=dict)
    unanswered: tuple[int, bytes, str, str] | None = None


class Pair(RuleBasedStateMachine):
    """The two, with the workers and readers of the stream."""

    url: ClassVar[str] = ""

    def open_pair(self) -> None:
        self.runner = asyncio.Runner(debug=False)
        self.connection = Connection(self.url, name="model")
        self.log = Log(self.connection)
        self.stream = streams.Stream(self.log, protocol.new_stream_id())
        self.real = Real(self.connection, self.stream)
        first = streams.start_frame(self.stream.id)
        self.model = Store(first, streams.last_id_of(first))
        self.tags = 0
        self.workers: list[Worker] = []
        self.readers: list[Reader] = []
        self.past: list[tuple[Image, Store]] = []
        self.written: dict[str, bytes] = {}
        self.forged: set[str] = set()  # ids that one claim gave to two texts

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            try:
                for reader in self.readers:
                    self.do(reader.read_to_end(self.log, self.stream.id, self.model, self.forged))
            finally:
                self.do(self.real.remove())
                self.do(self.connection.close())
                self.runner.close()

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def token(self) -> str:
        self.tags += 1
        return streams.token(self.tags)

    def cancel_both(self) -> None:
        tag = self.token()[:4]
        last = f"{len(self.model.log)}-{tag}"
        frame = f"id: {last}\nevent: cancelled\ndata: {{}}\n\n".encode()
        answer = self.do(self.log.cancel(self.stream.id, tag))
        assert answer.word == self.model.cancel(frame, last)
        if answer.word == "cancelled":
            self.remember(frame)

    def hopeful(self) -> list[Worker]:
        """The worker that holds the job, or else one that has just asked for it."""
        if not any(worker.token == self.model.holder for worker in self.workers):
            self.claim_both(Worker(self.token(), 0), "once")
        return [worker for worker in self.workers if worker.token == self.model.holder] or self.workers

    def claim_both(self, worker: Worker, calls: str) -> None:
        for _ in range(1 + (calls == "twice")):
            answer = self.do(self.log.claim(self.stream.id, worker.token, streams.LEASE_MS))
            word, log_end = self.model.claim(worker.token)
            assert answer.word == word
            if answer.claim is not None:
                assert (answer.claim.log_end, answer.claim.record.attempt) == (log_end, self.model.attempt)
        if word == "claimed" and not worker.memory:
            worker.end = log_end
        if calls != "answer lost" and worker not in self.workers:
            self.workers.append(worker)

    def write(self, worker: Worker, texts: list[str], final: str, mark: bool, calls: str) -> None:
        events = [streams.said(text) for text in texts] + ([FINALS[final]] if final else [])
        frames = streams.frames_of(worker.end, worker.token[:4], *events)
        self.send(worker, frames, final, "checkpoint" if mark else "", calls)

    def send(self, worker: Worker, frames: bytes, status: str, checkpoint: str, calls: str) -> None:
        """A new append, or first the one that had no answer."""
        call = worker.unanswered or (worker.end, frames, status, checkpoint)
        word = self.append_both(worker, call)
        if calls == "twice":
            word = self.append_both(worker, call)
        worker.unanswered = call if calls == "answer lost" or word == "lost" else None
        if word in ("ok", "duplicate") and calls != "answer lost":
            worker.end = call[0]
            for frame in sse.split_frames(call[1]):
                worker.memory[worker.end] = frame
                worker.end += len(frame)

    def append_both(self, worker: Worker, call: tuple[int, bytes, str, str]) -> str:
        position, frames, status, checkpoint = call
        last = streams.last_id_of(frames) if frames else ""
        arguments = (worker.token, position, frames, last, status, checkpoint)
        answer = self.do(self.real.append(*arguments))
        assert (answer.word, answer.number) == self.model.append(*arguments)
        if answer.word == "ok":
            self.remember(frames)
        return answer.word

    def remember(self, frames: bytes) -> None:
        for name, frame in zip(streams.ids_of(frames), sse.split_frames(frames), strict=True):
            if self.written.setdefault(name, frame) != frame:
                self.forged.add(name)


def one(items: list[T], pick: int) -> T:
    return items[-1 - pick % len(items)]
