"""Time that passes, and the searches for jobs that no worker holds: sweeps and asks, in any number at the
same time."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from gateway.protocol.errors import QueueUnavailable
from gateway.queue.redeliver import revive
from tests.model import streams
from tests.model.mail import Mail
from tests.model.pair import Pair
from tests.model.store import BACKOFF_MS, LONGEST_BACKOFF_MS, UNIT_MS
from tests.model.streams import GRACE_MS, LEASE_MS, WAIT_MS, Stream
from workers.delivery.sweeper import Sweeper

BUCKETS = 256  # two hex digits
STEP = 16  # only every 16th bucket has orphans: 16 groups cover all
BACKOFF = BACKOFF_MS / 1000
TURN, LAST_TURN = "turn:sweep", "turn:sweep:seen"
GROUPS = st.sampled_from([*range(STEP), None])
UNITS = st.sampled_from([1, 1, 2, 2, 3, 4, 65])


class Sweeps(Pair):
    """The queue, and how the sweeper and the relays use it."""

    def open_mail(self) -> None:
        self.mail = Mail()
        self.sweeper = Sweeper(self.log, self.mail, backoff=BACKOFF)
        self.last_turn = 0
        self.ending = False  # the model's stream must be ended, as its time is over
        self.do(self.connection.call("DEL", LAST_TURN))
        self.do(self._turn())

    def pass_time(self, ms: int) -> None:
        """Move the time forward or back, for the stream and for the sweeper."""
        self.shift(ms)
        self.do(self.connection.call("INCRBY", LAST_TURN, -ms))

    @rule(units=UNITS)
    def time_passes(self, units: int) -> None:
        self.pass_time(units * UNIT_MS)

    @rule(units=st.integers(1, 3), asks=st.booleans(), turns=st.booleans())
    def fault_31_clock_goes_back(self, units: int, asks: bool, turns: bool) -> None:
        """Set the clock back, as a failover may, soon after the sweeper's turn, perhaps between two asks."""
        self.turn()
        if asks:
            self.ask()
        self.pass_time(-units * UNIT_MS)
        if asks:
            self.ask()
        if turns:
            self.turn()

    @rule()
    def fault_02_messages_vanish(self) -> None:
        self.mail.sent.clear()

    @rule(sweeps=st.integers(1, 2), asks=st.integers(0, 3), group=GROUPS)
    def fault_34_sweeps_and_asks_coincide(self, sweeps: int, asks: int, group: int | None) -> None:
        """Check that each job without a holder gets one message, and no other job gets one."""
        orphans = self.do(self._orphans(group)) if group is not None else []
        owed = self._owed(asks > 0 or self.model.due)
        before = list(self.mail.sent)
        found = self.do(self._look(sweeps, asks))
        self.ended_in_time()
        fresh = self.mail.sent[len(before) :]
        assert sorted(fresh) == sorted([*owed, *(orphan.id for orphan in orphans)])
        assert found == len(fresh)
        self.mail.sent = before + owed
        self.do(self._remove(orphans))
        self.seen["found by sweep or ask"] += len(fresh)

    @rule()
    def fault_06_queue_refuses(self) -> None:
        """Let the queue refuse: the asker gets the refusal, and the job is found again after the back-off."""
        self.mail.refuses = True
        owed = self._owed(True)
        try:
            self.do(revive(self.log, self.mail, self.stream.id, backoff=BACKOFF))
            assert not owed
        except QueueUnavailable:
            assert owed
            self.model.undo()
        finally:
            self.mail.refuses = False
        self.ended_in_time()

    @rule()
    def turn(self) -> None:
        """Do the sweeper's turn. After the clock has gone back, it reads every stream of the index."""
        back, self.last_turn = self.last_turn > self.model.now, self.model.now
        looked = self.model.look_at is not None if back else self.model.due
        owed = self._owed(looked)
        before = list(self.mail.sent)
        self.do(self._turn())
        self.ended_in_time()
        assert self.mail.sent == before + owed

    @precondition(lambda self: self.model.orphaned)
    @rule()
    def fault_02_nobody_watches(self) -> None:
        self.surely_found()

    @precondition(lambda self: self.model.open and not self.model.begun)
    @rule()
    def fault_96_no_worker_begins_it(self) -> None:
        """Let the longest wait pass: the sweeper finds the stream first and ends it."""
        assert self.do(self.log.confirm(self.stream.id, GRACE_MS)) == self.model.confirm()
        self.pass_time(WAIT_MS)
        self.turn()

    def ended_in_time(self) -> None:
        """Check that the real stream was ended by its next reader, if the model's stream had to end."""
        if self.ending:
            self.ending = False
            self.given_up()

    def surely_found(self) -> None:
        """Check, without workers and messages, that one turn after the longest wait sends one message or ends
        the stream."""
        if self.last_turn > self.model.now:
            self.turn()
        self.mail.sent.clear()
        self.pass_time(LEASE_MS + LONGEST_BACKOFF_MS)
        owed = [self.stream.id] if self.model.orphaned and not self.model.over else []
        self.turn()
        assert self.mail.sent == owed
        assert not self.model.over
        self.seen["found in the end"] += len(owed)

    def at_the_end(self) -> None:
        super().at_the_end()
        self.surely_found()
        self.real.compare(self.do(self.real.look()), self.model)

    def _owed(self, looked: bool) -> list[str]:
        """Return what the model sends: the first asker gets an answer, concurrent askers get nothing."""
        word = self.model.ask()[0] if looked else ""
        self.ending = word == "over"
        return [self.stream.id] if word == "yes" else []

    async def _turn(self) -> None:
        """Make the sweeper's turn free."""
        await self.connection.call("DEL", TURN)
        await self.sweeper.turn()

    async def _look(self, sweeps: int, asks: int) -> int:
        calls: list[Any] = [self.sweeper.sweep() for _ in range(sweeps)]
        calls += [revive(self.log, self.mail, self.stream.id, backoff=BACKOFF) for _ in range(asks)]
        return sum(await asyncio.gather(*calls))

    async def _orphans(self, group: int) -> list[Stream]:
        """Make confirmed jobs whose messages are lost, one in each bucket of a group."""
        made = [Stream(self.log, streams.stream_id(n)) for n in range(group, BUCKETS, STEP)]
        await asyncio.gather(*(stream.create_again() for stream in made))
        await asyncio.gather(*(self.log.confirm(stream.id, 0) for stream in made))
        return made

    async def _remove(self, orphans: list[Stream]) -> None:
        commands: list[tuple[object, ...]] = []
        for stream in orphans:
            job, log, index = stream.keys
            commands += [("DEL", job, log), ("ZREM", index, stream.id)]
        if commands:
            await self.connection.call_all(commands)
