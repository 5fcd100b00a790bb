"""A block: the frames that one append published. All readers of a process share one block. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gateway.protocol import TERMINAL_EVENTS, sse
from gateway.protocol.chunked import chunk_of

# At most about this many bytes are joined into one block and passed to a reader at once.
MERGED_BYTES = 64 * 1024
_HEAD = re.compile("([0-9]{1,10}-[0-9a-f]{4}) ([0-9]{1,10}-[0-9a-f]{4}) ([a-z]*) (0|[1-9][0-9]{0,14})")
_FINAL = frozenset(status.value for status in TERMINAL_EVENTS.values())


@dataclass(slots=True)
class Block:
    """The frames that one append published.

    The ids are text, as they were published: readers only compare them. Nobody changes a block. A frozen
    dataclass would double the cost of making a block, and one block is made for every append.
    """

    before: str  # id of the event before the first frame
    last: str  # id of the last frame's event
    final: bool  # whether the last frame ends the stream
    at_ms: int  # time of the publish in ms, by Redis's clock
    frames: bytes
    _chunk: bytes = field(default=b"", compare=False, repr=False)

    @property
    def chunk(self) -> bytes:
        """The frames as one chunk of HTTP/1.1. The chunk is made once for all readers."""
        if not self._chunk:
            self._chunk = chunk_of(self.frames)
        return self._chunk

    @classmethod
    def parse(cls, payload: bytes) -> Block:
        r"""Parse `<before> <last> <status> <ms>\n<frames>`. This is done once for all readers of a process.

        Raises ValueError for any other payload.
        """
        head, _, frames = payload.partition(b"\n")
        found = _HEAD.fullmatch(head.decode("latin-1"))
        if found is None:
            raise ValueError("not a published block")
        before, last, status, at_ms = found.groups()
        return cls(before, last, status in _FINAL, int(at_ms), frames)


HEARTBEAT = Block("", "", False, 0, sse.HEARTBEAT)


def merged(blocks: Sequence[Block]) -> Iterator[Block]:
    """Join blocks where each follows the one before, up to about 64 KiB. The final block is not joined."""
    if len(blocks) == 1:
        yield blocks[0]
        return
    run: list[Block] = []
    size = 0
    for block in blocks:
        follows = run and block.before == run[-1].last and not (block.final or run[-1].final)
        if run and not (follows and size < MERGED_BYTES):
            yield _joined(run)
            run, size = [], 0
        run.append(block)
        size += len(block.frames)
    if run:
        yield _joined(run)


def _joined(run: Sequence[Block]) -> Block:
    if len(run) == 1:
        return run[0]
    first, last = run[0], run[-1]
    return Block(first.before, last.last, False, last.at_ms, b"".join(block.frames for block in run))
