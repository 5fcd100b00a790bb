"""A thousand wrong ids and tokens of each kind, on both hosts; and why every refusal takes the same time.

Fault 23. The times themselves are measured by `python -m tests.guess`; no test fails because of them.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from redis.asyncio import Redis

from gateway import protocol
from gateway.protocol.errors import StreamGone, StreamNotFound, Unauthorized
from gateway.settings import Settings
from gateway.streams import service as under_test
from gateway.streams.service import Gateway
from gateway.streams.stream_tokens import StreamTokens
from tests.callers import TOKEN_KEYS, Guarded
from tests.guess.classifiers import auc, by_threshold
from tests.guess.kinds import OWNER, ids, streams, tokens
from tests.guess.tried import ASKS, WITH_TOKEN, try_ids, try_tokens

pytest_plugins = ("tests.hosts", "tests.callers")

OF_EACH_KIND = {"uvicorn": 1000, "functions": 100}


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_fault_23_nobody_gets_in_and_all_are_told_the_same(guarded: Guarded) -> None:
    chance = random.Random(23)
    count = OF_EACH_KIND[guarded.name]
    known, now = await streams(guarded.store_url, count), await guarded.now_ms()
    url = str(guarded.http.base_url)
    let_in = await asyncio.to_thread(try_ids, url, known, count // len(ASKS), chance)
    let_in |= await asyncio.to_thread(try_tokens, url, known, count // len(WITH_TOKEN), now, chance)
    assert set(let_in.values()) == {0}, let_in
    assert len(let_in) == 4 * len(ASKS) + 4 * len(WITH_TOKEN)


async def test_each_kind_is_what_it_says(redis_url: str) -> None:
    known = await streams(redis_url, 6)
    chance, now = random.Random(1), 1_800_000_000_000
    kinds = {kind: [*given] for kind, given in ids(known, 20, chance).items()}
    assert all(protocol.is_stream_id(one) for given in kinds.values() for one in given)
    assert set(kinds["foreign"]) == set(known.live)
    assert set(kinds["expired"]) == set(known.past)
    assert not {*kinds["guessed"], *kinds["forged"]} & {*known.live, *known.past}
    ours = StreamTokens(TOKEN_KEYS[:2], 60)
    given = {kind: [*pairs] for kind, pairs in tokens(known, 20, now, chance).items()}
    assert not any(ours.holds(*pair, now) for pairs in given.values() for pair in pairs)
    assert all(ours.holds(*pair, 0) for pair in given["expired"])  # they were valid once
    assert all(any(ours.holds(s, token, now) for s in known.live) for _, token in given["foreign"])


@pytest.fixture
async def gateway(redis_url: str) -> Gateway:
    return Gateway(Settings(redis_url=redis_url, token_keys=" ".join(TOKEN_KEYS[:2])), {"chat": ["chat"]})


async def test_none_is_refused_before_the_set_time(
    gateway: Gateway, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "REFUSED_AFTER_SECONDS", 0.2)
    known, loop = await streams(redis_url, 2), asyncio.get_running_loop()
    for stream_id in (known.live[0], known.past[0], protocol.new_stream_id()):
        began = loop.time()
        with pytest.raises(StreamNotFound):
            await gateway.find(stream_id, "key:bob")
        assert loop.time() - began >= 0.2
    await gateway.close()


async def test_its_owner_waits_for_no_refusal(
    gateway: Gateway, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "REFUSED_AFTER_SECONDS", 3600)
    known = await streams(redis_url, 2)
    assert (await gateway.find(known.live[0], OWNER)).id == known.live[0]
    with pytest.raises(StreamGone):
        await gateway.find(known.past[0], OWNER)
    await gateway.close()


async def test_a_token_is_refused_before_anything_of_its_stream_is_read(
    gateway: Gateway, redis_url: str, redis: Redis
) -> None:
    known = await streams(redis_url, 2)
    now = await gateway.parts.log.now_ms()
    good, _ = StreamTokens(TOKEN_KEYS[:1], 60).issue(known.live[0], now)
    for token, read in ((good[:-3] + "AAA", False), ("x", False), (good, True)):
        await redis.config_resetstat()
        try:
            await gateway.find_by_token(known.live[0], token)
        except Unauthorized:
            assert not read
        asked = set(await redis.info("commandstats"))
        assert bool(asked & {f"cmdstat_{name}" for name in ("evalsha", "hget", "hmget")}) is read
    await gateway.close()


def test_the_classifiers_tell_what_can_be_told() -> None:
    chance = random.Random(1)
    same = [[chance.randrange(1000) for _ in range(4000)] for _ in range(2)]
    assert abs(auc(*same) - 0.5) < 0.03
    assert abs(by_threshold(*same) - 0.5) < 0.03
    assert auc([2, 3], [0, 1]) == by_threshold([2, 2, 3, 3], [0, 0, 1, 1]) == 1
    assert auc([0, 1], [2, 3]) == 0
    assert by_threshold([0, 0, 1, 1], [2, 2, 3, 3]) == 1  # in either order
    assert auc([1, 1], [1, 1]) == 0.5
    shifted = [value + 300 for value in same[1]]
    assert auc(shifted, same[0]) > 0.7
    assert by_threshold(shifted, same[0]) > 0.6
