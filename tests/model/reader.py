"""A client that follows a stream from any cursor, and the data that the contract says it must have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.protocol import Cursor, Event, sse
from gateway.protocol.errors import CursorLost
from gateway.protocol.fold import Fold
from gateway.store.log import PIECE_BYTES, Log
from gateway.store.record import Piece
from tests.model.store import Store
from tests.model.streams import ids_of
from tests.model.told import Text, texts_of


class Latecomer:
    """A client that skips the history: it has a status document, and the events after its `last_event_id`."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.last_id = document["last_event_id"]
        self.texts = [(s["name"], s["run"], s["state"], s["text"]) for s in document["stages"]]

    def feed(self, event_id: str, event: Event) -> None:
        data = event.data
        if event.type == "reset" and "stage" not in data:
            self.last_id, self.texts = "", []
            return
        self.last_id = event_id
        if event.type == "stage" and data["state"] == "started":
            self.texts.append((data["name"], data["run"], "started", ""))
        elif event.type in ("", "reset", "stage"):
            stage = data.get("stage", data.get("name"))
            at = max(number for number, text in enumerate(self.texts) if text[0] == stage)
            name, run, state, text = self.texts[at]
            text = "" if event.type == "reset" else text + data.get("delta_content", "")
            self.texts[at] = (name, run, "finished" if event.type == "stage" else state, text)


@dataclass(slots=True)
class Reader:
    """The data of a client: its cursor, its bytes, their position in the log, and their meaning."""

    cursor: str
    client: Fold | Latecomer = field(default_factory=Fold)
    begin: int = 0
    held: bytes = b""
    knows: bool = True  # it received, or learned otherwise, all before its cursor
    losses: int = 0
    decoder: sse.Decoder = field(default_factory=sse.Decoder)

    @classmethod
    def resuming(cls, cursor: str, held: bytes | None) -> Reader:
        """Make a client that resumes with the bytes it had when it was cut. None: a new client."""
        reader = cls(cursor, knows=held is not None)
        reader.take(held or b"")
        return reader

    @property
    def texts(self) -> list[Text]:
        if isinstance(self.client, Latecomer):
            return self.client.texts
        return [(stage.name, stage.run, stage.state, stage.text) for stage in self.client.stages]

    def take(self, frames: bytes) -> None:
        """Add bytes."""
        self.held += frames
        self._feed(frames)

    async def read(self, log: Log, stream_id: str, model: Store, forged: set[str], limit: int) -> bool:
        """Read one piece. Return whether it reached the end of the log. Check that a wrong cursor is
        reported."""
        after = Cursor.parse(self.cursor) if self.cursor else None
        try:
            piece = await log.read(stream_id, after, limit)
        except CursorLost:
            assert not model.holds(self.cursor), f"{self.cursor} stands in the log"
            self._forget()
            return False
        assert after is None or model.holds(self.cursor), f"{self.cursor} does not stand in the log"
        start = model.log.index(sse.FRAME_END, after.offset) + 2 if after else 0
        self._check(piece, model.log, start, limit)
        if not self.held:
            self.begin = start
        self.take(piece.frames)
        self.cursor = str(piece.last) if piece.last else ""
        self._compare(model.log[: start + len(piece.frames)], forged)
        return piece.at_end

    async def read_to_end(self, log: Log, stream_id: str, model: Store, forged: set[str]) -> None:
        """Read everything after its first cursor, or the whole log after a reported loss."""
        while not await self.read(log, stream_id, model, forged, PIECE_BYTES):
            pass  # the condition itself awaits
        self._compare(model.log, forged)

    def _forget(self) -> None:
        """Forget all received data, after `log_lost`."""
        self.cursor, self.begin, self.held = "", 0, b""
        self._feed(sse.LOG_LOST)
        assert (self.texts, self.client.last_id) == ([], "")
        self.knows = True
        self.losses += 1

    def _feed(self, frames: bytes) -> None:
        for message in self.decoder.feed(frames):
            self.client.feed(message.id, message.event())

    def _compare(self, log: bytes, forged: set[str]) -> None:
        """Check that its bytes equal the log, and that it knows the content of these bytes."""
        if forged.intersection(ids_of(self.held)):
            return
        assert self.held == log[self.begin :]
        if self.knows:
            assert self.texts == texts_of(log)
            assert self.client.last_id == self.cursor

    def _check(self, piece: Piece, log: bytes, start: int, limit: int) -> None:
        """Check that the piece has whole frames from `start`, is small enough, and reports the end
        correctly."""
        end = start + len(piece.frames)
        before = len(sse.split_frames(log[:start])[-1]) if start else 0
        frames = sse.split_frames(piece.frames)
        assert log.startswith(piece.frames, start)
        assert piece.frames or piece.at_end
        assert len(piece.frames) <= max(limit, 4 * (before + sum(map(len, frames[:1]))))
        assert not piece.at_end or end == len(log)
        so_far = sse.split_frames(log[:end])
        assert piece.final == bool(so_far and sse.is_terminal(so_far[-1]))
