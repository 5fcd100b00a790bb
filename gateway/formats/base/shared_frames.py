"""Sends a reader the frames of a shared projection (`shared.py`), from a place or a frame's number on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from gateway.formats.base.projection import Place, Projection, projected
from gateway.formats.base.shared import Stale, Trimmed, ends_of, id_of, projections
from gateway.protocol import sse
from gateway.protocol.errors import StoreUnavailable, StreamGone
from gateway.relay.reader import Ending, Why
from gateway.store.record import Record
from gateway.streams.service import Gateway

PIECE_BYTES = 256 * 1024
T = TypeVar("T")


async def shared(
    gateway: Gateway, record: Record, projection: Projection, after: Place | None, ending: Ending
) -> AsyncGenerator[bytes, None]:
    """Yield the frames after a place that is in the log. They are made once for all readers of this process.

    For a chunk of the log without frames yield empty bytes. Stop if the log has lost its tail or is another
    log: the frames that were sent may be void then.
    """
    every, relay, at = projections(gateway), gateway.parts.relay, after
    one = every.of(gateway, record.id, projection)
    try:
        if after is not None:
            try:
                rest = await one.rest(after, projection.wants)
            except Stale:  # the log lost its tail; the place is in the tail that was written instead
                every.drop(one)
                every.leave(one)
                one = every.of(gateway, record.id, projection)
                rest = await one.rest(after, projection.wants)
            for piece in pieces_of(rest):
                yield piece
        follows = relay.follow(record.id, after.cursor if after else None, ending, record.owner)
        async with aclosing(follows) as chunks:
            async for chunk in chunks:
                if chunk == sse.LOG_LOST:
                    return
                if chunk == sse.HEARTBEAT:
                    yield chunk
                    continue
                told = await one.of(chunk, projection.wants)
                every.grew(one)
                at = Place.behind(id_of(ends_of(chunk)[1]))
                for piece in pieces_of(told):
                    yield piece
        return
    except Stale:
        every.drop(one)
        ending.why = Why.CUT
        return
    except Trimmed:
        pass  # below, this reader gets its own projection, from the first event on
    finally:
        if one.is_broken:
            every.drop(one)
        every.leave(one)
    own = projected(relay.follow(record.id, None, ending, record.owner), projection, at)
    async with aclosing(own) as frames:
        async for made in frames:
            yield made


@dataclass(frozen=True, slots=True)
class Numbered:
    """The number of frames so far, whether the stream has ended, and the place of the reader's last frame.

    `after` is None if the reader has no frame.
    """

    count: int
    has_ended: bool
    after: Place | None


async def numbered(
    gateway: Gateway, record: Record, projection: Projection, had: Callable[[int, bool], int]
) -> Numbered:
    """Return the place of a reader that counts frames.

    `had` gets the number of frames so far and whether the stream has ended, and returns how many of the first
    frames the reader has. Raises StoreUnavailable, also if the log is not the same log any more.
    """
    every = projections(gateway)
    one = every.of(gateway, record.id, projection)
    try:
        await one.catch_up()
        has = min(had(one.frames, one.has_ended), one.frames)
        after = one.place_of(has - 1) if has > 0 else None
        return Numbered(one.frames, one.has_ended, after)
    except Stale:
        every.drop(one)
        raise StoreUnavailable from None
    finally:
        every.leave(one)


async def standing(
    gateway: Gateway, record: Record, projection: Projection, tell: Callable[[Projection], T]
) -> tuple[T, Place]:
    """What `tell` makes of the projection as the log stands now, and where a reader stands who has all of it.

    `tell` is given the shared projection, and changes nothing. Raises StreamGone where there is no log, and
    StoreUnavailable, also where the log turns out to be another one than it was.
    """
    every = projections(gateway)
    one = every.of(gateway, record.id, projection)
    try:
        await one.catch_up()
        if one.last is None:
            raise StreamGone
        return tell(one.projection), one.last
    except Stale:
        every.drop(one)
        raise StoreUnavailable from None
    finally:
        every.leave(one)


def pieces_of(blocks: Sequence[bytes]) -> Iterator[bytes]:
    """Yield these bytes in pieces of at most PIECE_BYTES. Without any blocks yield one empty piece."""
    run, size = [], 0
    for block in blocks:
        run.append(block)
        size += len(block)
        if size >= PIECE_BYTES:
            whole = b"".join(run)
            yield from (whole[at : at + PIECE_BYTES] for at in range(0, size, PIECE_BYTES))
            run, size = [], 0
    if size or not blocks:
        yield b"".join(run)
