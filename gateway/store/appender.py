"""A claim's appends, without a task for each: the answer comes by a callback.

What the claims of a process append in one turn of the event loop goes in one script, which costs Redis less
than a script for each. In a cluster those go together whose keys are in one slot; one that shows itself as a
single server (Azure Managed Redis with the Enterprise policy) says so when it refuses the first.
What is out of the ordinary (no connection, a refusal, an answer that never came) is not told apart here:
whoever appends asks again by `Log.append`, with the same bytes at the same position, which is always safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis.exceptions import ClusterCrossSlotError

from gateway.redis.connection import Connection
from gateway.redis.replies import Answer
from gateway.redis.script import Script
from gateway.redis.slots import slot_of_key

MOST_TOGETHER, MOST_BYTES = 32, 1024 * 1024  # of one script: Redis does nothing else meanwhile
_STANDS = [b"ok"]
Heard = Callable[[bool], None]


@dataclass(slots=True)
class _Append:
    pen: Pen
    arguments: tuple[Any, ...]
    size: int
    heard: Heard


class Pens:
    """Sends what its pens append."""

    def __init__(self, redis: Connection, append: Script) -> None:
        self._redis = redis
        self._append = append
        self._waiting: list[_Append] = []
        self._apart = False  # what is asked as a single server is a cluster

    def pen(self, keys: list[str], stream_id: str, token: str, lease_ms: int) -> Pen:
        """One claim's."""
        return Pen(self, tuple(keys), (stream_id, token), lease_ms)

    def add(self, append: _Append) -> None:
        """Send it with what else comes in this turn."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append(append)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        groups: dict[int, list[_Append]] = {}
        for append in waiting:
            if not append.pen.closed:
                key = append.pen.keys[0]
                slot = slot_of_key(key) if self._apart else self._redis.slot(key)
                groups.setdefault(slot, []).append(append)
        for group in groups.values():
            together, size = group[:1], group[0].size
            for append in group[1:]:
                if len(together) == MOST_TOGETHER or size + append.size > MOST_BYTES:
                    self._post(together)
                    together, size = [], 0
                together.append(append)
                size += append.size
            self._post(together)

    def _post(self, appends: list[_Append]) -> None:
        keys = [key for append in appends for key in append.pen.keys]
        arguments = [argument for append in appends for argument in append.arguments]
        command = ("EVALSHA", self._append.sha, len(keys), *keys, *arguments)
        try:
            sent = self._redis.post(keys[0], command, partial(self._told, appends))
        except Exception:  # a field that is none: whoever has it meets it again, and raises it
            sent = False
        if not sent:
            self._told(appends, None)

    def _told(self, appends: list[_Append], answer: Answer) -> None:
        """Of one append the answer is its own; of several a list; of none, or of all, an error."""
        self._apart |= isinstance(answer, ClusterCrossSlotError)
        answers = answer if isinstance(answer, list) and len(appends) > 1 else [answer] * len(appends)
        for append, one in zip(appends, answers, strict=True):
            append.heard(one == _STANDS)


class Pen:
    """Appends for one claim; `lease_ms` is what each renews. Of one that is `closed` nothing more is sent."""

    def __init__(self, pens: Pens, keys: tuple[str, ...], claim: tuple[str, str], lease_ms: int) -> None:
        self._pens = pens
        self.keys = keys
        self.closed = False
        self._claim = claim
        self._lease_ms = lease_ms

    def append(
        self, position: int, frames: bytes, last_id: str, fields: Mapping[str, Any], heard: Heard
    ) -> None:
        """Send these frames and fields of the record; `heard` is told later whether they surely stand.

        It may not raise: others are told after it.
        """
        arguments = (*self._claim, position, frames, last_id, self._lease_ms, "", 2 * len(fields))
        if fields:
            arguments += tuple(item for pair in fields.items() for item in pair)
        self._pens.add(_Append(self, arguments, len(frames), heard))
