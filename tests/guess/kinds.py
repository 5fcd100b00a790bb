"""Ids and tokens that must not give access, and the streams that they refer to.

Half of the foreign streams have ended and have a log; half are past their retention and have only a record.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gateway import protocol
from gateway.protocol import sse
from gateway.redis.connection import Connection
from gateway.store.log import Log
from gateway.streams.stream_tokens import StreamTokens
from tests.callers import TOKEN_KEYS

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
KEEP_MS = 3_600_000
AT_ONCE = 200
SECONDS = 60
OWNER = "key:alice"


@dataclass(frozen=True, slots=True)
class Streams:
    """Streams of Alice, by their ids."""

    live: Sequence[str]
    past: Sequence[str]


async def streams(redis_url: str, count: int) -> Streams:
    """Make `count` streams of Alice with the product's own scripts, in the store of a host."""
    connection = Connection(redis_url, name="guess")
    log = Log(connection)
    try:
        now = await log.now_ms()
        ids = [protocol.new_stream_id() for _ in range(count)]
        for at in range(0, count, AT_ONCE):
            await asyncio.gather(*(_ended(log, stream_id, now) for stream_id in ids[at : at + AT_ONCE]))
        past = ids[count // 2 :]
        for stream_id in past:
            await connection.call("DEL", Log.keys(stream_id)[1])
        return Streams(ids[: count // 2], past)
    finally:
        await connection.close()


async def _ended(log: Log, stream_id: str, now_ms: int) -> None:
    tag = protocol.tag_of(protocol.new_token())
    fields = {
        "version": protocol.VERSION,
        "owner": OWNER,
        "chain": "chat",
        "stages": b'["chat"]',
        "input": b'{"messages":[{"role":"user","content":"x"}]}',
        "params": b"{}",
        "trace": "",
        "created_ms": now_ms,
        "keep_ms": KEEP_MS,
        "tombstone_ms": KEEP_MS,
        "last_id": f"0-{tag}",
    }
    first = protocol.start(stream_id, "chat", ["chat"], protocol.iso(now_ms))
    await log.create(stream_id, fields, sse.encode(first, 0, tag))
    assert (await log.cancel(stream_id, tag)).word == "cancelled"


def ids(known: Streams, count: int, chance: random.Random) -> Mapping[str, Iterator[str]]:
    """Return for each kind `count` ids to which Bob has no right."""
    return {
        "guessed": (protocol.new_stream_id() for _ in range(count)),
        "foreign": (known.live[n % len(known.live)] for n in range(count)),
        "forged": (flipped(chance.choice(known.live), chance) for _ in range(count)),
        "expired": (known.past[n % len(known.past)] for n in range(count)),
    }


def tokens(
    known: Streams, count: int, now_ms: int, chance: random.Random
) -> Mapping[str, Iterator[tuple[str, str]]]:
    """Return for each kind `count` ids, each with a token that is not valid for it."""
    first, removed = StreamTokens(TOKEN_KEYS[:1], SECONDS), StreamTokens(TOKEN_KEYS[2:], SECONDS)
    expired = StreamTokens(TOKEN_KEYS[:1], 1)

    def forged(stream_id: str) -> str:
        token = first.issue(stream_id, now_ms)[0]
        expiry, mac = token.split(".")
        ways = (
            f"{expiry}.{flipped(mac[:-1], chance)}{mac[-1]}",
            f"{int(expiry) + chance.randrange(1, 9999)}.{mac}",
            removed.issue(stream_id, now_ms)[0],
        )
        return chance.choice(ways)

    def one() -> str:
        return chance.choice(known.live)

    return {
        "guessed": ((one(), guessed_token(now_ms)) for _ in range(count)),
        "foreign": (
            (s, first.issue(other(known.live, s, chance), now_ms)[0]) for s in (one() for _ in range(count))
        ),
        "forged": ((s, forged(s)) for s in (one() for _ in range(count))),
        "expired": (
            (s, expired.issue(s, now_ms - chance.randrange(1000, 10**9))[0])
            for s in (one() for _ in range(count))
        ),
    }


def guessed_token(now_ms: int) -> str:
    """Return a token in the right form, valid for the coming minute, that was never issued."""
    return f"{now_ms // 1000 + SECONDS}.{secrets.token_urlsafe(32)}"


def flipped(text: str, chance: random.Random) -> str:
    """Change one letter but keep the form: the first two characters of an id are digits of its bucket."""
    at = chance.randrange(2, len(text))
    return text[:at] + chance.choice(ALPHABET.replace(text[at], "")) + text[at + 1 :]


def other(ids: Sequence[str], stream_id: str, chance: random.Random) -> str:
    """Return another id of the list."""
    return chance.choice([found for found in chance.sample(ids, 2) if found != stream_id])
