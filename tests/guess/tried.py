"""Try every kind of wrong id and token in every type of request: none may get in, and all answers must be
equal."""

from __future__ import annotations

import random

from tests.callers import BOB, by_key
from tests.guess.asked import Ask, told
from tests.guess.kinds import Streams, ids, tokens
from tests.hosts import EVENTS, JSON

AT_ONCE = 32
AS_BOB = by_key(BOB)
ASKS = {
    "GET json": Ask("GET", "", {**JSON, **AS_BOB}),
    "GET events": Ask("GET", "", {**EVENTS, **AS_BOB}),
    "DELETE": Ask("DELETE", "", AS_BOB),
    "POST token": Ask("POST", "/token", AS_BOB),
}
WITH_TOKEN = {
    "GET json": Ask("GET", "", JSON),
    "GET events": Ask("GET", "", EVENTS),
    "DELETE": Ask("DELETE", "", {}),
    "POST token": Ask("POST", "/token", {}),
}


def try_ids(url: str, known: Streams, count: int, chance: random.Random) -> dict[str, int]:
    """Try `count` ids of each kind, in each type of request; return how many got in, by kind and type.

    Raises AssertionError for answers that differ.
    """
    found: dict[str, int] = {}
    for way, ask in ASKS.items():
        seen: set[bytes] = set()
        for kind, given in ids(known, count, chance).items():
            requests = (ask.request("h", stream_id) for stream_id in given)
            answers = [*told(url, requests, at_once=AT_ONCE)]
            found[f"{kind} id, {way}"] = sum(answer.status != 404 for answer in answers)
            seen |= {answer.answer for answer in answers}
        assert len(seen) == 1, seen
    return found


def try_tokens(url: str, known: Streams, count: int, now_ms: int, chance: random.Random) -> dict[str, int]:
    """Try tokens in the address in the same way; return how many got in."""
    found: dict[str, int] = {}
    for way, ask in WITH_TOKEN.items():
        seen: set[bytes] = set()
        for kind, given in tokens(known, count, now_ms, chance).items():
            requests = (ask.request("h", stream_id, f"?token={token}") for stream_id, token in given)
            answers = [*told(url, requests, at_once=AT_ONCE)]
            found[f"{kind} token, {way}"] = sum(answer.status != 401 for answer in answers)
            seen |= {answer.answer for answer in answers}
        assert len(seen) == 1, seen
    return found
