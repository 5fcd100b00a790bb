"""`python -m tests.guess`: check that no wrong caller gets in, and that answer times do not reveal whether a
stream exists.

A real host with GATEWAY_AUTH=keys is used. The exit code is 1 if a caller got in, if two answers differ, or
if a classifier of the times is further from 0.5 than the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from tests.callers import KEYS, TOKEN_KEYS, Guarded, keys_file, running
from tests.guess.asked import told
from tests.guess.classifiers import auc, by_threshold
from tests.guess.kinds import Streams, guessed_token, ids, streams
from tests.guess.tried import ASKS, WITH_TOKEN, try_ids, try_tokens
from tests.hosts import HOST_NAMES, quick_app
from tests.support.model_server import ModelServer
from tests.support.redis_server import RedisServer

BOUND = 0.02
WARM_UP = 500


def time_all(url: str, known: Streams, count: int, now_ms: int, chance: random.Random) -> bool:
    """Print, for each request type, how well the times separate foreign streams from missing ones; return
    whether none does."""
    fine = True
    for name, ask in ASKS.items():
        kinds = ids(known, count, chance)
        foreign, none = ([ask.request("h", one) for one in kinds[kind]] for kind in ("foreign", "guessed"))
        fine &= _tell(name, url, foreign, none, chance)
    for name in ("GET json", "GET events"):
        ask = WITH_TOKEN[name]
        kinds = ids(known, count, chance)
        foreign, none = (
            [ask.request("h", one, f"?token={guessed_token(now_ms)}") for one in kinds[kind]]
            for kind in ("foreign", "guessed")
        )
        fine &= _tell(f"{name}?token=", url, foreign, none, chance)
    return fine


def _tell(
    name: str, url: str, foreign: Sequence[bytes], none: Sequence[bytes], chance: random.Random
) -> bool:
    asked = [(True, request) for request in foreign] + [(False, request) for request in none]
    chance.shuffle(asked)
    for _ in told(url, none[:WARM_UP]):
        pass
    times: dict[bool, list[int]] = {True: [], False: []}
    answers: set[bytes] = set()
    for (is_foreign, _), answer in zip(asked, told(url, (request for _, request in asked)), strict=True):
        times[is_foreign].append(answer.took_ns)
        answers.add(answer.answer)
    area, threshold = auc(times[True], times[False]), by_threshold(times[True], times[False])
    medians = [sorted(times[kind])[len(times[kind]) // 2] / 1000 for kind in (True, False)]
    print(
        f"{name:18} {len(foreign)} foreign, {len(none)} unknown, {len(answers)} answer: "
        f"AUC by rank {area:.4f}, by threshold {threshold:.4f}; "
        f"medians {medians[0]:.0f} and {medians[1]:.0f} µs",
        flush=True,
    )
    return max(abs(area - 0.5), abs(threshold - 0.5)) <= BOUND and len(answers) == 1


async def main(name: str, count: int, seed: int) -> int:
    """Run all checks against one host; return the exit code."""
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "keys").write_text(keys_file(*KEYS))
        (folder / "app").mkdir()
        settings = {
            "GATEWAY_AUTH": "keys",
            "GATEWAY_KEYS_FILE": str(folder / "keys"),
            "GATEWAY_TOKEN_KEYS": " ".join(TOKEN_KEYS[:2]),
            "GATEWAY_TOKEN_SECONDS": "300",  # a token expires, even if its stream still runs
        }
        model, store = (
            await stack.enter_async_context(ModelServer()),
            await stack.enter_async_context(RedisServer()),
        )
        host: Guarded = await stack.enter_async_context(
            running(name, model, store, quick_app(folder / "app"), settings)
        )
        known = await streams(store.url, 2 * count)
        url, now = str(host.http.base_url), await host.now_ms()
        let_in = await asyncio.to_thread(try_ids, url, known, count, chance)
        let_in |= await asyncio.to_thread(try_tokens, url, known, count, now, chance)
        for what, number in let_in.items():
            print(f"{what:26} {count} tried, {number} let in", flush=True)
        fine = await asyncio.to_thread(time_all, url, known, count, now, chance)
    print(
        f"{name}: {sum(let_in.values())} let in; times {'cannot' if fine else 'CAN'} be told apart",
        flush=True,
    )
    return 0 if fine and not any(let_in.values()) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.guess")
    parser.add_argument("--count", type=int, default=10_000, help="of each kind")
    parser.add_argument("--host", choices=HOST_NAMES, default="uvicorn")
    parser.add_argument("--seed", type=int, default=23)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.host, given.count, given.seed)))
