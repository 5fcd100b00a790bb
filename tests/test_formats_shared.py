"""All readers of a stream in a process share one projection.

Each reader gets the same bytes, in any order, and the projection stays within its size limit.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.formats.base.projection import Frame, Place, Projection, events
from gateway.formats.base.shared import SharedProjection, Stale, Trimmed, projections
from gateway.formats.base.shared_frames import pieces_of
from gateway.protocol import Cursor, Event, sse
from gateway.protocol.events import done, start, text
from gateway.protocol.fold import StageText
from gateway.settings import Settings
from gateway.store.record import Piece
from gateway.streams.service import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="session")
TAG, OTHER = "beef", "cafe"
ID = "a" * 22


class Words(Projection):
    """A projection with one frame, with an id, for each word of a text.

    The word `no` gives an unwanted frame.
    """

    ids = True

    def shared_as(self) -> Any:
        return ()

    def wants(self, frame: Frame) -> bool:
        return frame.event != "unwanted"

    def text(self, stage: StageText, delta: str) -> Iterable[Frame]:
        for word in delta.split(" "):
            yield Frame({"word": word, "all": stage.text}, "unwanted" if word == "no" else "")

    def done(self, data: Any) -> Iterable[Frame]:
        yield Frame({"long": ["x" * 1000] * 2000})
        yield Frame(b"[DONE]")


def log_of(texts: Iterable[str], tag: str = TAG) -> bytes:
    """Return a complete log with these texts."""
    said: list[Event] = [start(ID, "c", ["c"], "2026-01-01T00:00:00Z")]
    said += [text(one, deployment="m", stage="c") for one in texts]
    said.append(done(finish_reason="stop", usage={}, attempts=1, duration_ms=1))
    log = b""
    for event in said:
        log += sse.encode(event, len(log), tag)
    return log


@dataclass
class MemoryLog:
    """A log in memory for one stream, with the interface of the store's log."""

    whole: bytes
    reads: int = 0
    piece: int = 300

    async def read(self, stream_id: str, after: Cursor | None) -> Piece:
        self.reads += 1
        await asyncio.sleep(0)
        begin = 0
        if after is not None:
            from gateway.protocol.errors import CursorLost

            if not self.whole[after.offset :].startswith(b"id: %b\n" % str(after).encode()):
                raise CursorLost
            begin = self.whole.index(sse.FRAME_END, after.offset) + 2
        end = self.whole.find(sse.FRAME_END, begin + self.piece)
        end = len(self.whole) if end < 0 else end + 2
        frames = self.whole[begin:end]
        last = [event_id for event_id, _ in events(frames)][-1:] or [str(after)]
        return Piece(frames, Cursor.parse(last[0]), end == len(self.whole), end == len(self.whole))


def made_of(log: MemoryLog) -> SharedProjection:
    return SharedProjection(Words(), log, ID)  # type: ignore[arg-type]


def plain(whole: bytes) -> list[tuple[str, list[bytes]]]:
    """Return each event's id and frames, made by a projection that is not shared."""
    own, told = Words(), []
    for event_id, event in events(whole):
        frames = own.feed(event_id, event)
        told.append((event_id, [f.encode(f"{event_id}.{n}") for n, f in enumerate(frames) if own.wants(f)]))
    return told


def chunks_of(whole: bytes, chance: random.Random, begin: int = 0) -> list[bytes]:
    """Return the log from an offset on, cut between random frames."""
    frames = sse.split_frames(whole[begin:])
    chunks = []
    while frames:
        many = chance.randint(1, 6)
        chunks.append(b"".join(frames[:many]))
        frames = frames[many:]
    return chunks


TEXTS = [f"word{n} is no {'é' * (n % 5)}\u2028" for n in range(40)]


@pytest.mark.parametrize("seed", range(20))
async def test_many_readers_at_random_places_have_the_same_bytes(seed: int) -> None:
    chance, whole = random.Random(seed), log_of(TEXTS)
    log = MemoryLog(whole)
    shared, right = made_of(log), plain(whole)

    async def reads() -> None:
        at = chance.randrange(-1, len(right))
        if at < 0:
            begin, expected, told = 0, b"".join(f for _, fs in right for f in fs), b""
        else:
            event_id, frames = right[at]
            all_of = [f for e, f in _all(whole) if e == event_id]
            number = chance.randrange(len(all_of)) if all_of else 0
            after = Place(Cursor.parse(event_id), number)
            wanted = [f for f in all_of[number + 1 :] if b"event: unwanted" not in f]
            expected = b"".join([*wanted, *(f for _, fs in right[at + 1 :] for f in fs)])
            told = b"".join(await shared.rest(after, Words().wants))
            begin = whole.index(sse.FRAME_END, int(event_id.partition("-")[0])) + 2
            assert frames is not None
        for chunk in chunks_of(whole, chance, begin):
            await asyncio.sleep(0)
            told += b"".join(pieces_of(await shared.of(chunk, Words().wants)))
        assert told == expected

    await asyncio.gather(*(reads() for _ in range(12)))
    assert shared.has_ended
    assert shared.frames == len(_all(whole))


def _all(whole: bytes) -> list[tuple[str, bytes]]:
    own, told = Words(), []
    for event_id, event in events(whole):
        told += [(event_id, f.encode(f"{event_id}.{n}")) for n, f in enumerate(own.feed(event_id, event))]
    return told


async def test_a_frames_number_names_its_place() -> None:
    whole = log_of(TEXTS[:5])
    shared = made_of(MemoryLog(whole))
    await shared.catch_up()
    numbers: dict[str, int] = {}
    for number, (event_id, _) in enumerate(_all(whole)):
        within = numbers[event_id] = numbers.get(event_id, -1) + 1
        assert shared.place_of(number) == Place(Cursor.parse(event_id), within)


async def test_a_reader_that_goes_in_the_middle_of_a_long_frame_harms_nobody() -> None:
    whole = log_of(TEXTS[:3])
    shared = made_of(MemoryLog(whole))
    for turns in (1, 2, 5, 9):
        gone = asyncio.create_task(shared.of(whole, Words().wants))
        for _ in range(turns):
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    told = b"".join(await shared.of(whole, Words().wants))
    assert told == b"".join(f for _, fs in plain(whole) for f in fs)


async def test_a_reader_behind_an_event_of_many_frames_is_told_none_of_them_again() -> None:
    whole = log_of([" ".join("w" for _ in range(200))])
    shared = made_of(MemoryLog(whole[: whole.rindex(b"id: ")]))  # the text is its last event
    await shared.catch_up()
    assert shared.frames == 200
    assert shared.last is not None
    assert b"".join(await shared.rest(shared.last, Words().wants)) == b""
    assert Place.parse(str(shared.last)) == shared.last


async def test_another_log_in_its_place_is_noticed() -> None:
    mine, other = log_of(TEXTS), log_of(TEXTS[:5] + ["x y z"] * 3, OTHER)
    log = MemoryLog(mine)
    shared = made_of(log)
    await shared.catch_up()
    with pytest.raises(Stale):
        await shared.of(other, Words().wants)
    fresh = made_of(log)
    await fresh.of(chunks_of(mine, random.Random(1))[0], Words().wants)
    log.whole = other
    with pytest.raises(Stale):
        await fresh.catch_up()


async def test_what_is_trimmed_is_told_so_and_the_rest_is_the_same() -> None:
    whole = log_of(TEXTS)
    shared = made_of(MemoryLog(whole))
    await shared.catch_up()
    before = shared.size
    shared.trim()
    assert shared.size < before
    frames = sse.split_frames(whole)
    with pytest.raises(Trimmed):
        await shared.of(whole, Words().wants)
    told = await shared.of(b"".join(frames[-3:]), Words().wants)
    assert b"".join(told) == b"".join(f for _, fs in plain(whole)[-3:] for f in fs)


@asynccontextmanager
async def gateway_of(log: MemoryLog, **settings: Any) -> AsyncIterator[Gateway]:
    gateway = Gateway(Settings(redis_url="redis://127.0.0.1:1", **settings), {"chat": ["chat"]})
    gateway.parts.log.read = log.read  # type: ignore[method-assign, assignment]
    yield gateway
    await gateway.close()


async def test_the_bound_holds_for_all_and_the_longest_unread_goes_first() -> None:
    log = MemoryLog(log_of(TEXTS), piece=10_000_000)
    # Each projection needs about two million bytes.
    async with gateway_of(log, max_projections=5_000_000) as gateway:
        every = projections(gateway)
        kept = []
        for number in range(4):
            one = every.of(gateway, f"{number}{ID[1:]}", Words())
            await one.catch_up()
            every.grew(one)
            kept.append(one)
            if number:
                every.leave(one)
        assert kept[1].is_broken
        assert not kept[0].is_broken  # It has a reader.
        assert not kept[3].is_broken
        again = every.of(gateway, f"{3}{ID[1:]}", Words())
        assert again is kept[3]
        assert every.of(gateway, f"{1}{ID[1:]}", Words()) is not kept[1]


async def test_those_that_are_all_read_lose_their_older_frames() -> None:
    log = MemoryLog(log_of(TEXTS * 30), piece=10_000_000)
    async with gateway_of(log, max_projections=100_000) as gateway:
        one = projections(gateway).of(gateway, ID, Words())
        await one.catch_up()
        projections(gateway).grew(one)
        with pytest.raises(Trimmed):
            await one.of(sse.split_frames(log.whole)[0], Words().wants)
        assert not one.is_broken


async def test_a_projection_that_fails_is_never_shared_again() -> None:
    class Broken(Words):
        def text(self, stage: StageText, delta: str) -> Iterable[Frame]:
            raise RuntimeError("a mistake")

    log = MemoryLog(log_of(TEXTS))
    async with gateway_of(log) as gateway:
        one = projections(gateway).of(gateway, ID, Broken())
        with pytest.raises(RuntimeError):
            await one.catch_up()
        assert projections(gateway).of(gateway, ID, Broken()) is not one
