"""Run ordinary readers and posters, first alone and then next to attackers, and compare the two periods."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import httpx

from tests.hosts import EVENTS, JSON, LIMIT_SECONDS
from tests.support.model_server import ModelServer, script
from tests.support.processes import REPOSITORY, GatewayProcess
from tests.support.redis_server import RedisServer

# Quotas that the load of one machine would reach are raised. The server's connection limits are unchanged.
ROOM = {
    "GATEWAY_MAX_OWNER_STREAMS": "100000",
    "GATEWAY_MAX_OWNER_STARTS_PER_MINUTE": "1000000",
    "GATEWAY_MAX_OWNER_BYTES": "100000000000",
    "GATEWAY_LOG_LEVEL": "warning",
}
TEXTS = ["one ", "two ", "three"]


@dataclass(slots=True)
class Seen:
    """The results of ordinary clients in one period: seconds of each request, errors, started streams."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Return a quantile in milliseconds."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 if ordered else 0.0


@dataclass(slots=True)
class Outcome:
    """Both periods; memory of `web` and worker in bytes: at the end of the first, and the maximum in the
    second."""

    quiet: Seen
    attacked: Seen
    acts: int
    memory: dict[str, tuple[int, int]]
    taken_over: list[str]  # streams with more than one attempt: a lease was lost

    def table(self) -> str:
        """Return both periods side by side."""
        lines = ["|  | quiet | attacked |", "|---|---|---|"]
        rows = [
            ("requests", *(f"{len(seen.seconds)}" for seen in (self.quiet, self.attacked))),
            ("p50, ms", *(f"{seen.quantile(0.5):.1f}" for seen in (self.quiet, self.attacked))),
            ("p99, ms", *(f"{seen.quantile(0.99):.1f}" for seen in (self.quiet, self.attacked))),
            ("failed", *(f"{len(seen.wrong)}" for seen in (self.quiet, self.attacked))),
            *(
                (f"MiB of {name}, most", *(f"{n / 2**20:.0f}" for n in both))
                for name, both in self.memory.items()
            ),
            ("acts of attackers", "0", f"{self.acts}"),
            ("leases lost", "", f"{len(self.taken_over)}"),
        ]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


class Ordinary:
    """Ordinary clients: one half starts streams and reads each to its end, the other reads an ended
    stream."""

    def __init__(self, http: httpx.AsyncClient, ended: str, count: int) -> None:
        self._http = http
        self._ended = ended
        self._count = count

    async def run(self, seconds: float) -> Seen:
        """Send one request a second from each client, evenly spread, for this time."""
        seen = Seen()
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._count):
                tasks.create_task(self._one(number, seconds, seen))
        return seen

    async def _one(self, number: int, seconds: float, seen: Seen) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + number / self._count
        ends = loop.time() + seconds
        while due < ends:
            await asyncio.sleep(max(0.0, due - loop.time()))
            began = perf_counter()
            try:
                await (self._post(seen) if number % 2 else self._read(seen))
            except httpx.HTTPError as error:
                seen.wrong.append(repr(error))
            seen.seconds.append(perf_counter() - began)
            due = max(due + 1, loop.time())

    async def _post(self, seen: Seen) -> None:
        answer = await self._http.post("/stream", json={"user": script(TEXTS)}, headers=EVENTS)
        if answer.status_code != 200 or not answer.text.rstrip().rpartition("event: ")[2].startswith("done"):
            seen.wrong.append(f"{answer.status_code} {answer.text[-200:]}")
        else:
            seen.streams.append(answer.headers["location"])

    async def _read(self, seen: Seen) -> None:
        answer = await self._http.get(self._ended, headers=EVENTS)
        if answer.status_code != 200 or "event: done" not in answer.text:
            seen.wrong.append(f"{answer.status_code} {answer.text[-200:]}")


async def run(seconds: float, count: int = 50) -> Outcome:
    """Run half the time without attackers, then the full time next to `count` attackers."""
    async with RedisServer() as store, ModelServer() as model:
        environment = {**model.environment(), "REDIS_URL": store.url, **ROOM}
        async with (
            GatewayProcess("web", environment) as web,
            GatewayProcess("worker", environment) as worker,
            httpx.AsyncClient(base_url=web.url, timeout=LIMIT_SECONDS) as http,
        ):
            first = await http.post("/stream", json={"user": script(TEXTS)}, headers=EVENTS)
            ordinary = Ordinary(http, first.headers["location"], count)
            await ordinary.run(2)  # warm up connections and code
            quiet = await ordinary.run(seconds / 2)
            pids = {"web": web.pid, "worker": worker.pid}
            before = {name: _memory(pid) for name, pid in pids.items()}
            watching = asyncio.create_task(_most(pids))
            attacking = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.attackers.attack", web.url),
                *("--count", str(count), "--seconds", str(seconds)),
                cwd=REPOSITORY,
                stdout=asyncio.subprocess.PIPE,
            )
            attacked, (told, _) = await asyncio.gather(ordinary.run(seconds), attacking.communicate())
            watching.cancel()
            most = await watching
            memory = {name: (before[name], max(most[name], _memory(pid))) for name, pid in pids.items()}
            taken_over = [where for where in attacked.streams if await _attempts(http, where) != 1]
            return Outcome(quiet, attacked, int(told or 0), memory, taken_over)


async def _attempts(http: httpx.AsyncClient, where: str) -> int:
    return int((await http.get(where, headers=JSON)).json()["attempt"])


async def _most(pids: dict[str, int]) -> dict[str, int]:
    """Return the maximum memory of each process; runs until cancelled."""
    most = dict.fromkeys(pids, 0)
    try:
        while True:
            most = {name: max(most[name], _memory(pid)) for name, pid in pids.items()}
            await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        return most


def _memory(pid: int) -> int:
    found = re.search(r"VmRSS:\s+([0-9]+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0
