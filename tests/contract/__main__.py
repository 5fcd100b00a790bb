"""`make contract`: ten thousand cases for each host, from its own /openapi.json, with all checks.

Half of the rounds are against a host that tells callers apart by API keys, half against one that does not.
Ends with 1 at the first round with a failure, and prints what Schemathesis says of it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from tests.callers import KEYS, METRICS_KEY, ORIGIN, SMALL, TOKEN_KEYS, Guarded, keys_file, running
from tests.contract.run import OWNERS, schemathesis
from tests.hosts import HOST_NAMES, quick_app
from tests.support.model_server import ModelServer
from tests.support.redis_server import RedisServer

EXAMPLES = 100  # for each operation in a round
ROUND_SECONDS = 1800
FUNCTION_KEY = "of-the-platform"
# The quotas are raised, except for the number of concurrent streams, so that 429 is answered sometimes.
PLENTY = {
    "GATEWAY_MAX_OWNER_STARTS_PER_MINUTE": "1000000",
    "GATEWAY_MAX_OWNER_BYTES": "1000000000000",
    **SMALL,
}
Callers = Mapping[str, Mapping[str, str]]


async def main(cases: int, seed: int, names: list[str]) -> int:
    """Check both hosts, one after the other; return the exit code."""
    for name in names:
        if not await _one(name, cases, seed):
            return 1
    return 0


async def _one(name: str, cases: int, seed: int) -> bool:
    """Run rounds against one host until all cases are done; return whether all answers match the document."""
    done = 0
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = await enter(ModelServer())
        hosts: list[tuple[str, Guarded, Callers]] = []
        for mode, (settings, callers) in _modes(folder, name).items():
            (folder / mode).mkdir()
            store, app = await enter(RedisServer()), quick_app(folder / mode)
            hosts.append((mode, await enter(running(name, model, store, app, settings)), callers))
        while done < cases:
            mode, host, callers = hosts[seed % len(hosts)]
            report = await schemathesis(
                str(host.http.base_url).rstrip("/"),
                folder,
                callers=callers,
                examples=EXAMPLES,
                seed=seed,
                limit_seconds=ROUND_SECONDS,
            )
            if report.only_gave_up:
                print(f"{name}, {mode}, seed {seed}: some requests could not be made up", flush=True)
            elif report.code or report.failures:
                print(
                    f"{report.printed}\n{name}, {mode}, seed {seed}: {report.failures} failures", flush=True
                )
                return False
            done += report.cases
            print(f"{name}, {mode}, seed {seed}: {report.cases} cases, no failure", flush=True)
            seed += 1
    print(f"{name}: {done} cases, every answer as the document says", flush=True)
    return True


def _modes(folder: Path, name: str) -> dict[str, tuple[Mapping[str, str], Callers]]:
    """Return the settings and the callers, by the name of the mode."""
    keys = folder / "keys.txt"
    keys.write_text(keys_file(*KEYS))
    keyed = {
        **PLENTY,
        "GATEWAY_AUTH": "keys",
        "GATEWAY_KEYS_FILE": str(keys),
        "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0],
        "GATEWAY_CORS_ORIGINS": ORIGIN,
        "GATEWAY_METRICS": "prometheus",
        "GATEWAY_METRICS_KEY": METRICS_KEY,
    }
    if name == "uvicorn":
        return {"keys": (keyed, OWNERS), "open": (PLENTY, {})}
    platform = {**PLENTY, "FUNCTIONS_HOST_KEY": FUNCTION_KEY}
    return {"keys": (keyed, OWNERS), "open": (platform, {"anybody": {"x-functions-key": FUNCTION_KEY}})}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.contract")
    parser.add_argument("--cases", type=int, default=10_000, help="for each host")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--host", choices=HOST_NAMES, action="append", help="only this one")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.cases, given.seed, given.host or list(HOST_NAMES))))
