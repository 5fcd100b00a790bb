"""The commands that were sent to Redis and are not answered yet, in order, with their callbacks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redis import exceptions as redis_errors

Answer = Any
# Called exactly once: with `(answers, None)`, where an answer may be a refusal; or with `([], error)`. The
# error is a TimeoutError, or says that the connection has ended.
Answered = Callable[[list[Answer], Exception | None], None]


@dataclass(slots=True)
class Exchange:
    """Commands that were written together, and their answers so far."""

    count: int
    answered: Answered
    # When the answers are too late, by the event loop's clock.
    due: float
    answers: list[Answer] = field(default_factory=list)
    # `answered` got a TimeoutError. The exchange stays in the list, to keep the order of answers.
    late: bool = False


class Pending:
    """The exchanges that wait for answers, in order.

    `overdue` is called when the first exchange has waited for `timeout` seconds.
    """

    def __init__(self, timeout: float, overdue: Callable[[], None]) -> None:
        self._timeout = timeout
        self._overdue = overdue
        self._exchanges: deque[Exchange] = deque()
        self._watch: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._exchanges)

    def add(self, count: int, answered: Answered) -> None:
        """Add an exchange: `count` commands were just written together."""
        loop = asyncio.get_running_loop()
        exchange = Exchange(count, answered, loop.time() + self._timeout)
        self._exchanges.append(exchange)
        if self._watch is None:
            self._watch = loop.call_at(exchange.due, self._look)

    def answered(self, answer: Answer) -> None:
        """Give the next answer to the first exchange.

        Raises IndexError if no command waits for an answer: then the order is lost.
        """
        exchange = self._exchanges[0]
        exchange.answers.append(answer)
        if len(exchange.answers) == exchange.count:
            self._exchanges.popleft()
            if not exchange.late:
                exchange.answered(exchange.answers, None)

    def fail(self, why: str) -> None:
        """Fail every waiting exchange with a ConnectionError: no more answers can come."""
        exchanges, self._exchanges = self._exchanges, deque()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for exchange in exchanges:
            if not exchange.late:
                exchange.answered([], redis_errors.ConnectionError(why))

    def _look(self) -> None:
        """Find exchanges that are too late. There is one timer: it is set for the oldest exchange."""
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
                exchange.answered([], TimeoutError())
        self._overdue()
