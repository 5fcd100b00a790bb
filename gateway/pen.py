"""A claim's appends, without a task for each: the answer comes by a callback.

What is out of the ordinary (no connection, a refusal, an answer that never came) is not told apart here:
whoever appends asks again by `Log.append`, with the same bytes at the same position, which is always safe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.connection import Connection
from gateway.pending import Answer
from gateway.script import Script

_STANDS = b"ok"


class Pen:
    """Appends for one claim, whose `keys` and `token` these are; `lease_ms` is what each renews."""

    def __init__(
        self, redis: Connection, append: Script, keys: list[str], stream_id: str, token: str, lease_ms: int
    ) -> None:
        self._redis = redis
        self._key = keys[0]
        self._command = ("EVALSHA", append.sha, len(keys), *keys, stream_id, token)
        self._lease_ms = lease_ms

    def append(
        self,
        position: int,
        frames: bytes,
        last_id: str,
        fields: Mapping[str, Any],
        heard: Callable[[bool], None],
    ) -> bool:
        """Send these frames, and these fields of the record; `heard` is told whether they surely stand.

        False where nothing could be sent: then `heard` is not called.
        """
        pairs = [item for pair in fields.items() for item in pair]
        command = (*self._command, position, frames, last_id, self._lease_ms, "", *pairs)
        return self._redis.post(self._key, command, lambda answer: heard(_stands(answer)))


def _stands(answer: Answer) -> bool:
    return isinstance(answer, list) and answer[0] == _STANDS
