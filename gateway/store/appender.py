"""Send the appends of all claims of a process: one script call for many claims, and no task for any claim.

A writer that has something to append asks for its turn. Once in a turn of the event loop the appender fetches
the next batch of each writer that has asked. It sends these batches in as few script calls as possible. One
call for many claims costs Redis less than a call for each. In a cluster the keys of one call must be in one
slot. Azure Managed Redis with the Enterprise policy shows a cluster as a single server. There the first
refusal (CROSSSLOT) makes the appender group its calls by slot from then on.

The appender reports to a writer only whether the log certainly contains its batch. It does not report why a
batch may be missing: no connection, a refusal, or no answer. The writer then appends the same bytes at the
same position by `Log.append`. That is always safe, because the script recognizes bytes that are already in
the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from redis.exceptions import ClusterCrossSlotError

from gateway.protocol import sse
from gateway.redis.commands import Commands
from gateway.redis.replies import Answer
from gateway.redis.script import Script
from gateway.redis.slots import slot_of_key
from gateway.store.record import Batch

# The bounds of one script call. Redis serves no other client while the script runs.
MOST_CLAIMS, MOST_BYTES = 32, 1024 * 1024
_STANDS = [b"ok"]


class BatchSource(Protocol):
    """A writer, as the appender uses it.

    Neither method may raise: the appender must serve the other writers.
    """

    def next_batch(self) -> Batch | None:
        """Return the batch to send now, or None if there is nothing to send any more."""

    def batch_sent(self, batch: Batch, stands: bool) -> None:
        """Receive the result for a batch of `next_batch`. `stands`: the log certainly contains it."""


class ClaimAppends:
    """The appends of one claim. Each of them renews the claim's lease to `lease_ms` milliseconds.

    `wait` is called when the claim asks for its turn. It must later call `next_batch` once.
    """

    __slots__ = ("_asked", "_wait", "claim", "keys", "lease_ms", "source")

    def __init__(
        self,
        wait: Callable[[ClaimAppends], None],
        keys: Sequence[str],
        claim: tuple[str, str],
        lease_ms: int,
        source: BatchSource,
    ) -> None:
        self._wait = wait
        self.keys = tuple(keys)
        self.claim = claim  # the stream's id and the claim's token
        self.lease_ms = lease_ms
        self.source = source
        self._asked = False

    def ask(self) -> None:
        """Ask for a turn. To ask again before that turn has come changes nothing."""
        if not self._asked:
            self._asked = True
            self._wait(self)

    def next_batch(self) -> Batch | None:
        """Return the next batch of the writer.

        The appender calls this when the turn of the claim has come.
        """
        self._asked = False
        return self.source.next_batch()


Sent = tuple[ClaimAppends, Batch]


class Appender:
    """Collects the batches of the claims that have asked for a turn, and sends these batches together."""

    def __init__(self, redis: Commands, append: Script, told: Callable[[str], None]) -> None:
        """`told` is called with the id of a stream to whose journal the script has written."""
        self._redis = redis
        self._told = told
        self._append = append
        self._waiting: list[ClaimAppends] = []
        self._by_slot = False  # True after a server that looked like a single node answered CROSSSLOT

    def wait(self, claim: ClaimAppends) -> None:
        """Add this claim to the list. Its next batch is sent in the next turn of the event loop."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append(claim)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        groups: dict[int, list[Sent]] = {}
        for claim in waiting:
            if (batch := claim.next_batch()) is not None:
                key = claim.keys[0]
                slot = slot_of_key(key) if self._by_slot else self._redis.slot(key)
                groups.setdefault(slot, []).append((claim, batch))
        for group in groups.values():
            if len(group) == 1:
                self._call(group)
                continue
            for call in _within_bounds(group):
                self._call(call)

    def _call(self, group: list[Sent]) -> None:
        keys = [key for claim, _ in group for key in claim.keys]
        arguments: list[Any] = []
        for claim, batch in group:
            arguments += append_arguments(*claim.claim, batch, claim.lease_ms)
        command = ("EVALSHA", self._append.sha, len(keys), *keys, *arguments)
        try:
            sent = self._redis.post(keys[0], command, partial(self._answered, group))
        except Exception:
            # A value of a field cannot be packed. Report every batch of this group as not done: each writer
            # appends alone then, and the writer with the bad value raises TypeError in its own task.
            sent = False
        if not sent:
            self._answered(group, None)

    def _answered(self, group: list[Sent], answer: Answer) -> None:
        """Report to each writer whether its batch is in the log.

        For several batches the script returns a list of answers. For one batch it returns the answer itself.
        """
        if isinstance(answer, ClusterCrossSlotError):
            self._by_slot = True
        answers = answer if isinstance(answer, list) and len(group) > 1 else [answer] * len(group)
        for (claim, batch), one in zip(group, answers, strict=True):
            claim.source.batch_sent(batch, one == _STANDS)
            if tells(batch):  # call it also if the answer of the script was lost
                self._told(claim.claim[0])


def tells(batch: Batch) -> bool:
    """Return whether the script writes an entry to the stream's journal with this batch."""
    return bool(batch.status) or sse.STAGE_LINE in batch.frames


def append_arguments(stream_id: str, token: str, batch: Batch, lease_ms: int) -> tuple[Any, ...]:
    """Return the arguments of `append.lua` for one batch of a claim, in the order of its header."""
    start = (stream_id, token, batch.position, batch.frames, batch.last_id, lease_ms, batch.status)
    if not batch.fields:
        return (*start, 0)
    return (*start, 2 * len(batch.fields), *(item for pair in batch.fields.items() for item in pair))


def _within_bounds(group: list[Sent]) -> Iterator[list[Sent]]:
    """Split a group so that each part is within MOST_CLAIMS and MOST_BYTES.

    A batch that is larger goes alone.
    """
    part: list[Sent] = []
    size = 0
    for one in group:
        length = len(one[1].frames)
        if part and (len(part) == MOST_CLAIMS or size + length > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(one)
        size += length
    if part:
        yield part
