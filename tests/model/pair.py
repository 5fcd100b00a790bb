"""A real stream and its model: each method here acts on both, and compares the answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from hypothesis.stateful import RuleBasedStateMachine

from gateway import protocol
from gateway.protocol import Cursor, sse
from gateway.protocol.errors import StreamGone, StreamNotFound
from gateway.queue.overdue import ENDINGS
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.record import Piece
from gateway.streams.service import Gateway
from tests.model import script, streams
from tests.model.reader import Reader
from tests.model.real import Image, Real, passes
from tests.model.store import BACKOFF_MS, Store
from tests.model.told import texts_of

FINALS = {"done": streams.DONE, "failed": protocol.failed("c", "m", retryable=False)}
CHOPPED_BYTES = 700
T = TypeVar("T")


@dataclass(slots=True)
class Worker:
    """The token of a claim, its next write position, and all that it has sent: position → frame."""

    token: str
    end: int
    memory: dict[int, bytes] = field(default_factory=dict)
    unanswered: tuple[int, bytes, str, str] | None = None

    @property
    def silent(self) -> bool:
        """Return whether it has not written yet."""
        return not self.memory and self.unanswered is None


class Chopped(Log):
    """A log that is read in small pieces, so that a reader crosses many piece boundaries."""

    async def read(self, stream_id: str, after: Cursor | None, limit: int = CHOPPED_BYTES) -> Piece:
        return await super().read(stream_id, after, limit)


class Pair(RuleBasedStateMachine):
    """The real stream and the model, with the workers and readers of the stream."""

    url: ClassVar[str] = ""
    is_void = False  # the process was stopped during this life: ignore the result
    loop_class: ClassVar[type[asyncio.AbstractEventLoop] | None] = None
    seen: ClassVar[Counter[str]] = Counter()  # counts what the lives met, to show that each case occurs

    def open_pair(self, bucket: int) -> None:
        self.runner = asyncio.Runner(debug=False, loop_factory=self.loop_class)
        self.web = Gateway(Settings(redis_url=self.url), {})
        self.do(self._open())
        self.stream = streams.Stream(self.log, streams.stream_id(bucket))
        self.real = Real(self.connection, self.stream)
        first = streams.start_frame(self.stream.id)
        self.model = Store(first, streams.last_id_of(first))
        self.tags = 0
        self.workers: list[Worker] = []
        self.readers: list[Reader] = [Reader("")]  # the first reader is there from the start
        self.past: list[tuple[Image, Store]] = []
        self.written: dict[str, bytes] = {}
        self.through: dict[str, bytes] = {}  # event id → the log up to this event, when it was written
        self.checked: tuple[bytes, str] | None = None  # log and status at the last status document
        self.forged: set[str] = set()  # ids under which one claim wrote two texts

    async def _open(self) -> None:
        self.connection = self.web.parts.redis
        self.log = Chopped(self.connection)
        self.web._parts = replace(self.web.parts, log=self.log)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            try:
                if hasattr(self, "model") and not self.is_void:
                    self.at_the_end()
            finally:
                self.do(self.real.remove())
                self.do(self.web.close())
                self.runner.close()

    def at_the_end(self) -> None:
        """Check that every reader can read to the end and then knows the same as the other readers."""
        for reader in self.readers:
            self.do(reader.read_to_end(self.log, self.stream.id, self.model, self.forged))
            self.seen["told log_lost"] += reader.losses

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def shift(self, ms: int) -> None:
        """Move the time of this stream forward or back."""
        self.do(self.real.advance(ms))
        self.model.now += ms

    def ask(self) -> str:
        answer = self.do(self.log.ask(self.stream.id, BACKOFF_MS))
        word, left = self.model.ask()
        assert (answer.word, passes(answer.number, left)) == (word, True)
        return word

    def given_up(self) -> None:
        """The real stream was ended because its time was over: append the same end to the model."""
        code, end = self.model.over, len(self.model.log)
        image = self.do(self.real.look())
        frames = image.log[end:]
        tag = streams.last_id_of(frames).partition("-")[2]
        created_at = protocol.iso(int(image.job["created_ms"]))
        start = [] if end else [protocol.start(self.stream.id, "chat", ["answer"], created_at)]
        assert frames == streams.frames_of(end, tag, *start, ENDINGS[code])
        self.model.give_up(frames, streams.last_id_of(frames))
        self.remember(frames, len(self.model.log))
        self.seen["given up: " + code] += 1

    def document(self) -> dict[str, Any] | None:
        """Return the status document, or None if there is none."""
        try:
            found = self.do(self.web.status(self.stream.id, protocol.ANONYMOUS))
            if self.model.over:  # a request for the status ends an overdue stream
                self.given_up()
            return found
        except StreamGone:
            assert self.model.alive
            assert not self.model.log
        except StreamNotFound:
            assert not self.model.alive
        return None

    def check_document(self) -> None:
        """Check that the status document agrees with the log, both text and cursor."""
        model = self.model
        if self.checked == (model.log, model.status):
            return
        self.checked = (model.log, model.status)
        document = self.document()
        assert (document is None) == (not model.log)
        if document is None:
            return
        told = texts_of(model.log)
        found = [(s["name"], s["run"], s["state"], s["text"]) for s in document["stages"]]
        assert found == told
        assert document["text"] == (told[-1][-1] if told else "")
        said = (document["last_event_id"], document["status"], document["attempt"])
        assert said == (model.last_id, model.status, model.attempt)

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
            self.remember(frame, len(self.model.log))

    def hopeful(self) -> list[Worker]:
        """Return the worker that holds the job, or a worker that has just asked for it."""
        if not any(worker.token == self.model.holder for worker in self.workers):
            self.claim_both(Worker(self.token(), 0), "once")
        return [worker for worker in self.workers if worker.token == self.model.holder] or self.workers

    def claim_both(self, worker: Worker, calls: str) -> str:
        """Claim on both sides. A worker whose claim was answered joins the workers."""
        for _ in range(1 + (calls == "twice")):
            run_ms = streams.RUN_MS
            answer = self.do(self.log.claim(self.stream.id, worker.token, streams.LEASE_MS, run_ms=run_ms))
            word, log_end = self.model.claim(worker.token)
            assert answer.word == word
            assert word != "held" or passes(answer.number, log_end)
            if answer.claim is not None:
                assert (answer.claim.log_end, answer.claim.record.attempt) == (log_end, self.model.attempt)
        if word == "claimed" and worker.silent:
            worker.end = log_end
        if calls != "answer lost" and worker not in self.workers:
            self.workers.append(worker)
        return word

    def write(self, worker: Worker, items: list[str], final: str, mark: bool, calls: str) -> None:
        events = script.free(items, self.model.log, worker.token[:4])
        events += [FINALS[final]] if final else []
        frames = streams.frames_of(worker.end, worker.token[:4], *events)
        self.send(worker, frames, final, "checkpoint" if mark else "", calls)

    def send(self, worker: Worker, frames: bytes, status: str, checkpoint: str, calls: str) -> str:
        """Send a new append, or first repeat the append that got no answer."""
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
        return word

    def restore_tail(self, worker: Worker) -> bool:
        """After the store lost a tail, append the same frames again. Return whether the worker has these
        frames."""
        end = len(self.model.log)
        if end not in worker.memory or end >= worker.end:
            return False
        for position, frame in sorted(worker.memory.items()):
            if position >= end:
                self.append_both(worker, (position, frame, _final_of(frame), ""))
        return True

    def append_both(self, worker: Worker, call: tuple[int, bytes, str, str]) -> str:
        position, frames, status, checkpoint = call
        last = streams.last_id_of(frames) if frames else ""
        arguments = (worker.token, position, frames, last, status, checkpoint)
        answer = self.do(self.real.append(*arguments))
        assert (answer.word, answer.number) == self.model.append(*arguments)
        if answer.word == "ok":
            self.remember(frames, len(self.model.log))
        return answer.word

    def remember(self, frames: bytes, end: int) -> None:
        """Store that these frames were written and end at this position."""
        end -= len(frames)
        for name, frame in zip(streams.ids_of(frames), sse.split_frames(frames), strict=True):
            end += len(frame)
            self.through[name] = self.model.log[:end]
            if self.written.setdefault(name, frame) != frame:
                self.forged.add(name)


def one(items: list[T], pick: int) -> T:
    return items[-1 - pick % len(items)]


def _final_of(frame: bytes) -> str:
    return sse.frame_kind(frame).removeprefix(b"event: ").decode() if sse.is_terminal(frame) else ""
