"""What was sent to Redis and is not yet answered: who hears of it, in the order in which it was sent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redis import exceptions as redis_errors

Answer = Any
# Told once: the answers, refusals among them; or why there are none, a TimeoutError or the connection's end.
Heard = Callable[[list[Answer], Exception | None], None]


@dataclass(slots=True)
class Exchange:
    """Commands that were written together, and their answers so far."""

    count: int
    heard: Heard
    due: float  # when its answers are too late, by the event loop's clock
    answers: list[Answer] = field(default_factory=list)
    late: bool = False  # its caller has been told so, and it keeps its place


class Pending:
    """Exchanges in order. `overdue` is called when the first of them has waited for `timeout` seconds."""

    def __init__(self, timeout: float, overdue: Callable[[], None]) -> None:
        self._timeout = timeout
        self._overdue = overdue
        self._exchanges: deque[Exchange] = deque()
        self._watch: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._exchanges)

    def add(self, count: int, heard: Heard) -> None:
        """The next exchange, of so many commands."""
        loop = asyncio.get_running_loop()
        exchange = Exchange(count, heard, loop.time() + self._timeout)
        self._exchanges.append(exchange)
        if self._watch is None:
            self._watch = loop.call_at(exchange.due, self._look)

    def answered(self, answer: Answer) -> None:
        """The next answer. Raises IndexError for one that nobody asked for: the order is lost."""
        exchange = self._exchanges[0]
        exchange.answers.append(answer)
        if len(exchange.answers) == exchange.count:
            self._exchanges.popleft()
            if not exchange.late:
                exchange.heard(exchange.answers, None)

    def fail(self, why: str) -> None:
        """No more answers come."""
        exchanges, self._exchanges = self._exchanges, deque()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for exchange in exchanges:
            if not exchange.late:
                exchange.heard([], redis_errors.ConnectionError(why))

    def _look(self) -> None:
        """One timer for all: is the answer that has been waited for longest too late?"""
        self._watch = None
        now = asyncio.get_running_loop().time()
        if not self._exchanges:
            return
        if self._exchanges[0].due > now:
            self._watch = asyncio.get_running_loop().call_at(self._exchanges[0].due, self._look)
            return
        for exchange in self._exchanges:
            if exchange.due <= now:
                exchange.late = True
                exchange.heard([], TimeoutError())
        self._overdue()
