"""The app with Azure's own parts.

The parts are the Functions runtime, its queue and timer listeners, and Storage's emulator.
"""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from gateway.queue.job_queue import Message
from gateway.store.log import Log
from tests.cloud import Cloud, ended
from tests.hosts import JOBS, LIMIT_SECONDS, until
from tests.support.model_server import script

pytest_plugins = ("tests.hosts", "tests.cloud")
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.functions, pytest.mark.slow]


async def test_202_means_that_storage_holds_the_message(cloud: Cloud) -> None:
    async with cloud.running(listen=False) as instance, cloud.queue() as queue:
        where = await instance.start(["never"])
        [message] = list(await queue.peek_messages(max_messages=32))
        body = json.loads(base64.b64decode(message.content))
        assert body == {"v": 1, "id": where.rpartition("/")[2], "traceparent": ""}
        await instance.http.delete(where)
        await queue.clear_messages()


async def test_fault_06_without_storage_503_is_said_and_nothing_will_run(cloud: Cloud) -> None:
    async with cloud.running(listen=False) as instance:
        await instance.start(["the queue's depth is known"])
        known = set(await cloud.redis.keys("*:job:*"))
        await cloud.azurite.stop()
        try:
            answer = await instance.http.post("/stream", json={"user": script(["never"])})
        finally:
            await cloud.azurite.start()
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
        made = set(await cloud.redis.keys("*:job:*")) - known
        assert len(made) <= 1  # No record exists if the depth had to be read again.
        for record in made:
            assert 0 < await cloud.redis.pttl(record) <= 60_000  # Nothing extends it, so it ends in a minute.
            assert not await cloud.redis.hexists(record, "confirmed")
        assert await cloud.depth() == 1
        assert (await instance.http.post("/stream", json={"user": "again"})).status_code == 202
    async with cloud.queue() as queue:
        await queue.clear_messages()


@pytest.mark.parametrize("form", ["base64", "plain"])
async def test_a_message_made_by_hand_in_the_portal_is_run(cloud: Cloud, form: str) -> None:
    async with cloud.running(listen=False) as instance:
        where = await instance.start(["by hand"])
    async with cloud.queue() as queue, cloud.running() as instance:
        await queue.clear_messages()
        body = Message(where.rpartition("/")[2]).encode()
        await queue.send_message(base64.b64encode(body).decode() if form == "base64" else body.decode())
        assert (await instance.until(where, ended))["text"] == "by hand"


async def test_fault_02_an_instance_that_is_killed_is_replaced_and_the_stream_goes_on(cloud: Cloud) -> None:
    async with cloud.running() as first:
        where = await first.start(["a", "b", "c"], gate="killed", gate_at=2)
        await first.until(where, lambda seen: seen["text"] == "ab")
        await first.host.kill()
    cloud.model.open_gate("killed")
    async with cloud.running() as second:  # No reader watches the stream: the timer finds it.
        async with second.http.stream("GET", where, headers={"accept": "text/event-stream"}) as live:
            events = [line async for line in live.aiter_lines() if line.startswith("event: ")]
        document = await second.status(where)
    assert (document["status"], document["text"], document["attempt"]) == ("done", "abc", 2)
    assert "event: reset" not in events


async def test_fault_05_a_job_that_kills_its_process_each_time_ends(cloud: Cloud) -> None:
    async with cloud.running(listen=False) as instance:
        answer = await instance.http.post("/stream", json={"input": "x", "chain": "deadly"})
        where = answer.headers["location"]
    job, deaths = Log.keys(where.rpartition("/")[2])[0], 0
    async with asyncio.timeout(4 * LIMIT_SECONDS):
        while await cloud.redis.hget(job, "status") != b"failed":
            async with cloud.running() as instance:
                death = asyncio.create_task(instance.host.wait(None))
                end = asyncio.create_task(
                    until(lambda: cloud.redis.hget(job, "status"), lambda seen: seen == b"failed")
                )
                await asyncio.wait({death, end}, return_when=asyncio.FIRST_COMPLETED)
                deaths += death.done()
                for task in (death, end):
                    task.cancel()
                await asyncio.gather(death, end, return_exceptions=True)
    async with cloud.running(listen=False) as instance:
        document = await instance.status(where)
    assert (document["status"], document["error"]["code"]) == ("failed", "attempts_exhausted")
    assert deaths in (3, 4)  # Three deliveries failed. The first one may have reported that a stage began.


async def test_fault_08_a_long_absence_of_the_store_ends_no_stream(cloud: Cloud) -> None:
    """All times are a tenth of those in host.json: ten seconds here are more than a minute in production."""
    host = json.loads((cloud.app / "host.json").read_text())
    host["extensions"]["queues"]["visibilityTimeout"] = "00:00:01"
    (cloud.app / "host.json").write_text(json.dumps(host))
    async with cloud.running() as instance:
        running = await instance.start(["a", "b"], gate="absent", gate_at=1)
        await instance.until(running, lambda seen: seen["text"] == "a")
        async with cloud.queue() as queue:
            await cloud.store.kill()
            await queue.send_message(Message(running.rpartition("/")[2]).encode().decode())
            poisoned = lambda: cloud.count(f"{JOBS}-poison")  # noqa: E731
            # The platform gave up after five failed deliveries.
            await until(poisoned, lambda depth: depth > 0)
        await cloud.store.start()
        waiting = await instance.start(["c"])
        cloud.model.open_gate("absent")
        for where, text in ((running, "ab"), (waiting, "c")):
            document = await instance.until(where, ended)
            assert (document["status"], document["text"]) == ("done", text)


async def test_a_message_that_was_given_up_goes_on_while_its_job_is_well(cloud: Cloud) -> None:
    async with cloud.running(listen=False) as instance:
        where = await instance.start(["well"])
        await cloud.clear()
        body = Message(where.rpartition("/")[2]).encode()
        assert await instance.host.queue(f"{JOBS}-poison", body) == {"ok": True}
        assert await cloud.depth() == 1  # The message is hidden for half a minute.
        assert (await instance.status(where))["status"] == "queued"
        key = Log.keys(where.rpartition("/")[2])[0]
        await cloud.redis.hset(key, "failures", 3)
        assert await instance.host.queue(f"{JOBS}-poison", body) == {"ok": True}
        document = await instance.status(where)
        assert (document["status"], document["error"]["code"]) == ("failed", "attempts_exhausted")
        await cloud.clear()


async def test_what_starts_or_ends_work_needs_a_function_key(cloud: Cloud) -> None:
    async with cloud.running(listen=False, FUNCTIONS_HOST_KEY="k") as instance:
        http, body, key = instance.http, {"user": script(["x"])}, {"x-functions-key": "k"}
        assert (await http.post("/stream", json=body)).status_code == 401
        assert (await http.post("/api/http_trigger", json=body)).status_code == 401
        where = (await http.post("/stream?code=k", json=body)).headers["location"]
        assert (await http.delete(where)).status_code == 401
        for path in (where, "/", "/health"):
            assert (await http.get(path, headers={"accept": "*/*, application/json"})).status_code != 401
        assert (await http.delete(where, headers=key)).json()["status"] == "cancelled"
