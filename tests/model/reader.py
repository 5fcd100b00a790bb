"""A client that follows a stream from any cursor, and what the contract says it must hold."""

from __future__ import annotations

from dataclasses import dataclass

from gateway import sse
from gateway.errors import CursorLost
from gateway.log import PIECE_BYTES, Log
from gateway.protocol import Cursor
from gateway.record import Piece
from tests.model.store import Store
from tests.model.streams import ids_of


@dataclass(slots=True)
class Reader:
    """What a client holds: its cursor, its bytes, and where in the log they begin."""

    cursor: str
    begin: int = 0
    held: bytes = b""

    async def read(self, log: Log, stream_id: str, model: Store, forged: set[str], limit: int) -> bool:
        """Take one piece. Whether it reached the log's end; a cursor that is wrong must be told so."""
        after = Cursor.parse(self.cursor) if self.cursor else None
        try:
            piece = await log.read(stream_id, after, limit)
        except CursorLost:
            assert not model.holds(self.cursor), f"{self.cursor} stands in the log"
            self.cursor, self.begin, self.held = "", 0, b""  # `log_lost`: it forgets all it had
            return False
        assert after is None or model.holds(self.cursor), f"{self.cursor} does not stand in the log"
        start = model.log.index(sse.FRAME_END, after.offset) + 2 if after else 0
        self._check(piece, model.log, start, limit)
        if not self.held:
            self.begin = start
        self.held += piece.frames
        self.cursor = str(piece.last) if piece.last else ""
        whole = model.log[self.begin : start + len(piece.frames)]
        assert self.held == whole or forged.intersection(ids_of(self.held))
        return piece.at_end

    async def read_to_end(self, log: Log, stream_id: str, model: Store, forged: set[str]) -> None:
        """Everything from its first cursor on; the whole log when it was told of a loss."""
        while not await self.read(log, stream_id, model, forged, PIECE_BYTES):
            pass  # the condition itself awaits
        assert self.held == model.log[self.begin :] or forged.intersection(ids_of(self.held))

    def _check(self, piece: Piece, log: bytes, start: int, limit: int) -> None:
        """Whole frames that stand at `start`, of bounded size, and the truth about the end."""
        end = start + len(piece.frames)
        before = len(sse.split_frames(log[:start])[-1]) if start else 0
        frames = sse.split_frames(piece.frames)
        assert log.startswith(piece.frames, start)
        assert piece.frames or piece.at_end
        assert len(piece.frames) <= max(limit, 4 * (before + sum(map(len, frames[:1]))))
        assert not piece.at_end or end == len(log)
        so_far = sse.split_frames(log[:end])
        assert piece.final == bool(so_far and sse.is_terminal(so_far[-1]))
