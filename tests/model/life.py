"""Events in the life of any stream, independent of its writer: calls of the gateway, faults and readers.

A life begins with `open_life`. After each step the real store must equal the plain model.
"""

from __future__ import annotations

import copy
from time import time
from typing import ClassVar

from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from gateway.protocol import sse
from tests.model import streams
from tests.model.pair import one
from tests.model.reader import Latecomer, Reader
from tests.model.real import Image
from tests.model.store import UNIT_MS, Store
from tests.model.sweeps import Sweeps

VERBS = st.sampled_from(["create", "confirm", "confirm", "ask", "ask", "cancel"])
RARELY = st.integers(0, 7).map(lambda number: number == 7)
MADE_UP = st.sampled_from(["0-0000", "7-5a5a", "0-5a5a", "00-5a5a", "9999999999-beef"])
PICK = st.integers(0, 1_000_000)


class Life(Sweeps):
    """Rules are calls of the product and faults; the invariant compares the store with the model."""

    steps: ClassVar[int] = 0
    born_ms = 0  # time of the first snapshot, on the store's clock

    def open_life(self, bucket: int) -> None:
        self.born_ms = 0
        self.open_pair(bucket)
        self.open_mail()
        self.gateway("create")

    # Actions of the gateway and the sweeper.

    @rule(verb=VERBS)
    def gateway(self, verb: str) -> None:
        match verb:
            case "create":
                created_ms = round(time() * 1000) - self.model.now  # time of the first request
                word, found = self.do(self.stream.create_again(created_ms=created_ms))
                assert (word, found) == (self.model.create(), self.stream.id)
                if self.model.log.startswith(self.model.first):
                    self.remember(self.model.first, len(self.model.first))
            case "confirm":
                assert self.do(self.log.confirm(self.stream.id, streams.GRACE_MS)) == self.model.confirm()
            case "ask":
                self.ask()
            case "cancel":
                self.cancel_both()

    # Faults.

    @rule(pick=PICK)
    def store_loses_tail(self, pick: int) -> None:
        """Return everything to an earlier step, as after a crash that loses the last second before it is on
        disk."""
        self.go_back(*one(self.past, pick))

    def go_back(self, image: Image, model: Store) -> None:
        """Return the store to an earlier state, but let its clock run on."""
        self.do(self.real.restore(image))
        now, self.model = self.model.now, copy.copy(model)
        self.shift(now - model.now)

    @precondition(lambda self: self.model.open)
    @rule(pick=PICK)
    def log_is_cut(self, pick: int) -> None:
        """Cut only the log, at the end of a frame, and set the record's last id. The cut can be at positions
        where no append ended."""
        frames = sse.split_frames(self.model.log)
        if not frames:
            return
        self.model.log = b"".join(frames[: 1 + pick % len(frames)])
        self.model.last_id = streams.last_id_of(self.model.log)
        self.do(self.real.cut(self.model.log, self.model.last_id))

    @rule(whole=st.booleans(), happens=RARELY)
    def expire(self, whole: bool, happens: bool) -> None:
        if happens:
            self.do(self.real.expire(whole=whole))
            self.model.log, self.model.kept = b"", {}
            if whole:
                self.model.expire()

    # Actions of readers.

    @rule(pick=PICK, made_up=st.none() | MADE_UP)
    def join(self, pick: int, made_up: str | None) -> None:
        """Add a reader at the first event, at any cursor ever seen, or at an invented cursor."""
        cursor = made_up or one(["", *self.through], pick)
        held = self.through.get(cursor) if cursor else b""
        self._attach(Reader.resuming(cursor, held))

    @rule()
    def join_late(self) -> None:
        """Add a reader that uses the status document in place of the history."""
        document = self.document()
        if document is not None:
            client = Latecomer(document)
            self._attach(Reader(document["last_event_id"], client, held=self.model.log))

    @precondition(lambda self: self.readers)
    @rule(pick=PICK, limit=st.sampled_from([32, 64, 300, 65536]))
    def read(self, pick: int, limit: int) -> None:
        reader = one(self.readers, pick)
        self.do(reader.read(self.log, self.stream.id, self.model, self.forged, limit))

    def _attach(self, reader: Reader) -> None:
        self.readers = [self.readers[0], *self.readers[1:][-5:], reader]

    @invariant()
    def store_is_the_model(self) -> None:
        type(self).steps += 1
        self.picture()
        self.check_document()

    def picture(self) -> None:
        """Compare the store with the model, and keep both: the store may return to this state."""
        image = self.do(self.real.look())
        self.born_ms = self.born_ms or image.now
        if image.now - self.born_ms > UNIT_MS / 2:  # the process was stopped and the real clock ran on
            self.is_void = True
            reject()
        self.real.compare(image, self.model)
        self.past = [*self.past[-8:], (image, copy.copy(self.model))]
