"""The platform stops an instance of the app by SIGTERM. Its work continues on another instance."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from gateway.hosts import functions_extension
from gateway.store.log import Log
from tests.cloud import Cloud, Instance, ended
from tests.hosts import EVENTS, Wire, until
from tests.support.collector import Collector
from tests.support.model_server import script

pytest_plugins = ("tests.hosts", "tests.cloud", "tests.callers")
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.functions, pytest.mark.slow]

DIRECT, QUEUED, READERS = 5, 5, 20
CHUNKS, GATE = ["a", "b", "c"], "taken-away"
# Another worker may take a job that was not handed over after a minute. No test here waits that long.
SETTINGS = {"GATEWAY_LEASE_SECONDS": "60", "GATEWAY_QUEUE_GRACE_SECONDS": "60"}
LATER = {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}  # Spans are sent only at the end.
# The factory of one chain closes what it has opened. The factory of the other chain never does.
OPENED = """
import asyncio, logging
from langchain_core.runnables import RunnableLambda
from workers.chains.registry import chain

@chain("closing")
async def closing(settings):
    yield RunnableLambda(lambda given: "open")
    await asyncio.sleep(0)
    logging.getLogger("opened").warning("closed in good order")

@chain("stuck")
async def stuck(settings):
    yield RunnableLambda(lambda given: "open")
    await asyncio.Event().wait()
"""


class Reader:
    """Follows a stream.

    If its connection is closed before the end, it continues on the other instance by cursor.
    """

    def __init__(self, first: Instance, elsewhere: Instance, where: str) -> None:
        self.frames, self.events, self.where = b"", list[str](), where
        self._elsewhere = elsewhere
        self._first = first

    async def follow(self) -> None:
        """Read to the end. Raise RemoteProtocolError if a connection is cut instead of closed."""
        last = ""
        for http in (self._first.http, self._elsewhere.http):
            cursor = {"last-event-id": last} if last else {}
            wire = Wire((await http.get(self.where, headers={**EVENTS, **cursor})).content)
            self.take(wire)
            last = wire.ids[-1]

    async def post(self, body: dict[str, str], trace: str) -> None:
        """Follow the stream from the POST that starts it, which makes it a direct start."""
        parent = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        request = self._first.http.stream("POST", "/stream", json=body, headers={**EVENTS, **parent})
        async with request as answer:
            self.where = answer.headers["location"]
            first = Wire(await answer.aread())
        self.take(first)
        rest = await self._elsewhere.http.get(self.where, headers={**EVENTS, "last-event-id": first.ids[-1]})
        self.take(Wire(rest.content))

    def take(self, wire: Wire) -> None:
        self.frames += wire.frames
        self.events += wire.events


def roomy(cloud: Cloud) -> None:
    """Give one instance room for all jobs at once, as a whole fleet has."""
    host = json.loads((cloud.app / "host.json").read_text())
    host["extensions"]["queues"]["batchSize"] = DIRECT + QUEUED
    (cloud.app / "host.json").write_text(json.dumps(host))


async def test_fault_02_an_instance_that_is_taken_away_hands_everything_over(
    cloud: Cloud, collector: Collector
) -> None:
    trace, body = os.urandom(16).hex(), {"user": script(CHUNKS, gate=GATE, gate_at=1)}
    roomy(cloud)
    settings = {**SETTINGS, **LATER, **collector.environment("taken-away")}
    async with cloud.running(listen=True, **settings) as first:
        queued = [await first.start(CHUNKS, gate=GATE, gate_at=1) for _ in range(QUEUED)]
        for where in queued:
            await first.until(where, lambda seen: seen["text"] == "a")
        async with cloud.running(listen=True, **settings) as second, asyncio.TaskGroup() as tasks:
            posting = [Reader(first, second, "") for _ in range(DIRECT)]
            for reader in posting:
                tasks.create_task(reader.post(body, trace))
            await until(lambda: asyncio.sleep(0, [each.where for each in posting]), all)
            streams = [*queued, *(each.where for each in posting)]
            for where in streams[QUEUED:]:
                await first.until(where, lambda seen: seen["text"] == "a")
            following = [
                Reader(first, second, streams[n % len(streams)]) for n in range(READERS - len(posting))
            ]
            for reader in following:
                tasks.create_task(reader.follow())
            subscribed = [f"live:{where[8:]}" for where in streams]
            await until(lambda: cloud.redis.pubsub_numsub(*subscribed), lambda seen: all(n for _, n in seen))
            first.host.terminate()
            assert await first.host.wait() == 0
            assert first.host.console() == []
            said = first.host.log().splitlines()
            assert sum("ended=stopping" in line for line in said) == READERS
            assert sum('word="handed over"' in line for line in said) == DIRECT + QUEUED
            assert "Traceback" not in first.host.log()
            # These spans come from the first process alone. The second one has ended nothing, and sends no
            # spans before its own end.
            await collector.until_spans(trace, {"create stream", "process holdfast-jobs"})
            records = [Log.keys(where[8:])[0] for where in streams]
            claims = lambda: asyncio.gather(*(cloud.redis.hget(key, "attempt") for key in records))  # noqa: E731
            await until(claims, lambda seen: set(seen) == {b"2"})
            cloud.model.open_gate(GATE)
            for where in streams:
                document = await second.until(where, ended)
                assert (document["status"], document["text"], document["attempt"]) == ("done", "abc", 2)
        for reader in (*posting, *following):
            assert "reset" not in reader.events
            assert reader.frames == await cloud.redis.get(Log.keys(reader.where[8:])[1])
    await cloud.gone()


async def test_what_factories_have_opened_is_closed_and_what_does_not_close_is_named(cloud: Cloud) -> None:
    (cloud.app / "opened.py").write_text(OPENED)
    async with cloud.running(listen=False, GATEWAY_CHAINS="opened") as instance:
        for chain in ("closing", "stuck"):
            asked = {"input": "", "chain": chain}
            answer = await instance.http.post("/stream", json=asked, headers=EVENTS)
            assert Wire(answer.content).events[-1] == "done"
        assert "closed in good order" not in instance.host.log()
        instance.host.terminate()
        assert await instance.host.wait() == 0
        assert instance.host.console() == []
        log = instance.host.log()
        assert "closed in good order" in log
        assert (
            f"what the chain stuck has opened does not close in {functions_extension.CHAINS_SECONDS:.0f} s"
            in log
        )
