"""One delivery run by the product's own `Runner`. Each call of the store waits until the test lets it happen.

The runner, the writer, the attempt and the adapter are the product's. `Gate` takes the place of the log: a
call waits in `calls` until the test executes or refuses it. `Loop` has a clock that only the test moves, so
pauses, renewals and back-offs happen exactly when the test decides.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableGenerator

from gateway.protocol import Cursor, Event
from gateway.protocol.errors import StoreUnavailable
from gateway.queue.job_queue import Message
from gateway.settings import Settings
from gateway.store.appender import BatchSource, ClaimAppends
from gateway.store.log import Log
from gateway.store.record import Answer, Claim, Piece
from tests.model.script import STAGES
from tests.model.streams import LEASE_MS, RUN_MS
from workers.chains.registry import Chain, Registry
from workers.delivery.runner import Runner, Settled

MOST_TURNS = 100_000  # turns until the event loop is idle; any step needs far fewer
SETTINGS = Settings(
    lease=LEASE_MS / 1000,
    max_run=RUN_MS / 1000,
    stage_tries=1_000_000,
    stage_limit=0,
    max_failures=1_000_000,
    max_attempts=1_000_000,
    store_patience=1e8,  # in real time, which passes while this process is stopped
)


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock moves only by `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self._moment = 0.0

    def time(self) -> float:
        """Return the time in seconds, as set by the test."""
        return self._moment

    def forward(self, seconds: float) -> None:
        """Move the clock. Timers that are then due run in the next turns."""
        self._moment += seconds

    @property
    def rests(self) -> bool:
        """Return whether only the caller of this method is ready to run."""
        return not self._ready  # type: ignore[attr-defined]


class CutError(Exception):
    """A failure of the model's server that may be temporary."""

    is_retryable = True


@dataclass(slots=True)
class Call:
    """A waiting call of the store: `claim`, `append`, `read` or `give_up`, with its arguments."""

    kind: str
    arguments: tuple[Any, ...]
    answer: Callable[[Any], None]
    refuse: Callable[[], None]


@dataclass(slots=True)
class Try:
    """One try of a run of a stage: the words that the chain has written in it."""

    stage: str
    words: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.words)


class Gate:
    """The log, with the interface that the product's worker calls."""

    connection = None  # this log is not in Redis

    def __init__(self) -> None:
        self.calls: deque[Call] = deque()
        self.killed = False

    async def claim(self, stream_id: str, token: str, lease_ms: int, **given: Any) -> Answer:
        return cast(Answer, await self._wait("claim", stream_id, token, lease_ms, given))

    async def give_up(self, stream_id: str, tag: str, failed: Event) -> Answer:
        return cast(Answer, await self._wait("give_up", stream_id, tag, failed))

    async def read(self, stream_id: str, after: Cursor | None) -> Piece:
        return cast(Piece, await self._wait("read", stream_id, after))

    async def append(
        self,
        claim: Claim,
        position: int,
        frames: bytes,
        last_id: str,
        lease_ms: int,
        *,
        status: str = "",
        fields: Mapping[str, Any] | None = None,
    ) -> Answer:
        wait = self._wait("append", claim, position, frames, last_id, status, fields or {})
        return cast(Answer, await wait)

    def appends(self, claim: Claim, lease_ms: int, source: BatchSource) -> ClaimAppends:
        def wait(one: ClaimAppends) -> None:
            asyncio.get_running_loop().call_soon(self._append_next, claim, one)

        return ClaimAppends(wait, (), (claim.record.id, claim.token), lease_ms, source)

    def kill(self) -> None:
        """Simulate the death of the process: no call reaches the store any more, and its tasks here end."""
        self.killed = True
        while self.calls:
            _end(self.calls.popleft())

    def add(self, call: Call) -> None:
        """Add a waiting call."""
        if self.killed:
            _end(call)
        else:
            self.calls.append(call)

    def _append_next(self, claim: Claim, appends: ClaimAppends) -> None:
        batch = appends.next_batch()
        if batch is not None:
            self.add(
                Call(
                    "append",
                    (claim, batch.position, batch.frames, batch.last_id, "", batch.fields),
                    lambda answer: appends.source.batch_sent(batch, answer.word == "ok"),
                    lambda: appends.source.batch_sent(batch, False),
                )
            )

    async def _wait(self, kind: str, *arguments: Any) -> Any:
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def refuse() -> None:
            if not answered.done():
                answered.set_exception(StoreUnavailable())

        def answer(value: Any) -> None:
            if isinstance(value, Exception) and not answered.done():
                answered.set_exception(value)
            elif not answered.done():
                answered.set_result(value)

        self.add(Call(kind, arguments, answer, refuse))
        return await answered


def _end(call: Call) -> None:
    """End the caller in a process that has died."""
    if call.kind == "read":
        call.refuse()
    else:
        call.answer(Answer("fenced"))


class Handled:
    """The fate of one delivery. The chain has two stages, and writes the words that the test orders."""

    def __init__(self, stream_id: str) -> None:
        self.gate = Gate()
        self.end = -1  # log position of the next frame, known from answers only
        self.behind = False  # an append got no answer, and will be repeated
        self.tries: list[Try] = []
        self.trying = False  # the chain waits for an order
        self._stopped = False
        self.ended: dict[str, str] = {}  # stage → the words of the try that completed it
        self._orders: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        chain = Chain("chat", STAGES, lambda _: {})
        made = {name: self._stage(name) for name in STAGES}

        async def load(name: str) -> Any:
            return made

        registry = SimpleNamespace(
            find=lambda name: chain, load=load, put=lambda name: lambda _, asked: asked
        )
        runner = Runner(SETTINGS, cast(Log, self.gate), cast(Registry, registry))
        self._task = asyncio.get_running_loop().create_task(runner.run(Message(stream_id).encode()))
        # read the result, so that asyncio does not warn
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    @property
    def over(self) -> bool:
        return self._task.done()

    def result(self) -> Settled:
        """Return the result of the run. Raises the runner's exception."""
        return self._task.result()

    def order(self, *orders: str | Exception | None) -> None:
        """Give orders to the chain: a word to write, an exception to raise, or None for the end of the
        stage."""
        for order in orders:
            self._orders.put_nowait(order)

    def stop(self) -> None:
        """Tell the process to stop, so that it releases the job. A process is told only once."""
        if not self._stopped:
            self._stopped = True
            self._task.cancel()

    def _stage(self, name: str) -> Runnable[Any, Any]:
        async def transform(given: AsyncIterator[Any]) -> AsyncIterator[str]:
            async for _ in given:
                pass
            now = Try(name)
            self.tries.append(now)
            while (order := await self._ordered()) is not None:
                if isinstance(order, Exception):
                    raise order
                now.words.append(order)
                yield order
            self.ended[name] = now.text

        return RunnableGenerator(transform)

    async def _ordered(self) -> str | Exception | None:
        self.trying = True
        try:
            return await self._orders.get()
        finally:
            self.trying = False


async def rest(loop: Loop) -> None:
    """Run the loop until all tasks wait for the test or for the clock."""
    for _ in range(MOST_TURNS):
        await asyncio.sleep(0)
        if loop.rests:
            return
    raise AssertionError("something never comes to rest")
