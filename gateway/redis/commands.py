"""The interface for commands to Redis. It is the same for a single server and for a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from gateway.protocol.errors import StoreUnavailable
from gateway.redis.refusals import is_unavailable
from gateway.redis.replies import Answer

Command = tuple[Any, ...]


class Commands(ABC):
    """Sends commands. Each command may be sent more than once, so each command must be idempotent.

    All methods raise StoreUnavailable when the server is out of reach, or when it says that it cannot run the
    command now.
    """

    async def call(self, *command: str | bytes | int | float) -> Answer:
        """Return the answer of one command. If it is an error, raise it (a class of redis-py)."""
        return checked(await self.answers([command]))[0]

    async def call_all(self, commands: list[Command]) -> list[Answer]:
        """Return the answers of several commands, which are written together.

        If an answer is an error, raise the first one, like `call`.
        """
        return checked(await self.answers(commands))

    @abstractmethod
    async def answers(self, commands: list[Command]) -> list[Answer]:
        """Return the answers like `call_all`, but a refused command has its ResponseError as its answer."""

    @abstractmethod
    def slot(self, key: str) -> int:
        """Return the key's slot.

        Keys of one slot may be used in one script. A single server has only one slot.
        """

    @abstractmethod
    def post(self, key: str, command: Command, answered: Callable[[Answer], None]) -> bool:
        """Send a command of this key without a task. `answered` gets the answer, or an exception instead.

        Returns False if no connection is open: then nothing was sent, and `answered` is not called. There is
        no second try. If the command fails, the caller repeats it with `call`. Raises TypeError for a value
        that cannot be sent.
        """

    @abstractmethod
    async def by_node(self, keys: list[str]) -> list[list[str]]:
        """Return these keys, grouped by the server that has them.

        Each server has its own clock and its own failures.
        """

    @abstractmethod
    async def nodes(self) -> Sequence[Commands]:
        """Return a connection to each server that has keys."""

    @abstractmethod
    async def close(self) -> None:
        """Close for good. Calls that wait for an answer, and all later calls, raise StoreUnavailable."""


def checked(answers: list[Answer]) -> list[Answer]:
    """Return these answers if none is an error.

    Raises the first error, or StoreUnavailable if it says that the server cannot run the command now.
    """
    for answer in answers:
        if isinstance(answer, Exception):
            if is_unavailable(answer):
                raise StoreUnavailable from answer
            raise answer
    return answers
