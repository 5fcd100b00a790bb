"""What the product asks of Redis, whether that is a single server or a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.refusals import is_unavailable
from gateway.redis.replies import Answer

Command = tuple[Any, ...]


class Commands(ABC):
    """Sends commands. Each may be sent more than once, so each must be idempotent.

    All methods raise StoreUnavailable when the server is out of reach, or when it says that it cannot do it
    now.
    """

    async def call(self, *command: str | bytes | int | float) -> Answer:
        """The answer of one command. Raises the server's error (redis-py's classes) where it is one."""
        return checked(await self.answers([command]))[0]

    async def call_all(self, commands: list[Command]) -> list[Answer]:
        """The answers of several commands, written together. Raises as `call`, for the first error."""
        return checked(await self.answers(commands))

    @abstractmethod
    async def answers(self, commands: list[Command]) -> list[Answer]:
        """As `call_all`, but a command that is refused has its ResponseError as its answer."""

    @abstractmethod
    def slot(self, key: str) -> int:
        """The key's slot: keys of one slot may go in one script. A single server has only one."""

    @abstractmethod
    def post(self, key: str, command: Command, answered: Callable[[Answer], None]) -> bool:
        """Send a command of this key without a task. `answered` gets the answer, or an exception instead.

        False where no connection is open: then nothing was sent, and `answered` is not called. There is no
        second try. The caller repeats a command that has failed by `call`. Raises TypeError for a value that
        cannot be sent.
        """

    @abstractmethod
    async def by_node(self, keys: list[str]) -> list[list[str]]:
        """These keys, grouped by the server that has them: each server has its own clock and faults."""

    @abstractmethod
    async def nodes(self) -> Sequence[Commands]:
        """A connection to each server that has keys."""

    @abstractmethod
    async def close(self) -> None:
        """Close for good. Calls that wait for an answer, and calls from now on, raise StoreUnavailable."""


def checked(answers: list[Answer]) -> list[Answer]:
    """These answers. Raises the first error, or StoreUnavailable where the server cannot do it now."""
    for answer in answers:
        if isinstance(answer, Exception):
            if is_unavailable(answer):
                raise StoreUnavailable from answer
            raise answer
    return answers
