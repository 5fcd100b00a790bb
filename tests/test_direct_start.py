"""A job that runs in the process that received its POST.

The job's queue message is a backup. No instance here polls or has a timer, unless a test says so.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.queue.job_queue import Message
from gateway.store.log import Log
from tests.cloud import HELD_JOBS, Cloud, Instance, decoded, ended
from tests.hosts import EVENTS, JOBS, JSON, LIMIT_SECONDS, Wire, until
from tests.support.model_server import script
from tests.support.processes import GatewayProcess
from tests.support.queued import StorageTap

pytest_plugins = ("tests.hosts", "tests.cloud")
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.functions, pytest.mark.slow]

TRIES = 3  # Azure's client tries one call three times.


class Reader:
    """A POST request whose answer is the event stream."""

    def __init__(self, answer: httpx.Response) -> None:
        self.where: str = answer.headers["location"]
        self._chunks = answer.aiter_bytes()
        self.raw = b""

    async def until(self, text: str) -> None:
        """Read until the model's text has arrived."""
        while json.dumps(text).encode() not in self.raw:
            self.raw += await anext(self._chunks)

    async def end(self) -> Wire:
        """Read to the end and return the whole stream."""
        async for chunk in self._chunks:
            self.raw += chunk
        return Wire(self.raw)


@asynccontextmanager
async def reading(http: httpx.AsyncClient, chunks: list[str], **options: Any) -> AsyncIterator[Reader]:
    """Send a POST with `Accept: text/event-stream`. Add `headers`. Other options go to the script."""
    headers = {**EVENTS, **options.pop("headers", {})}
    body = {"user": script(chunks, **options)}
    async with (
        asyncio.timeout(2 * LIMIT_SECONDS),
        http.stream("POST", "/stream", json=body, headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        yield Reader(answer)


def text_of(wire: Wire) -> str:
    return "".join(
        json.loads(data)["delta_content"]
        for event, data in zip(wire.events, wire.data, strict=True)
        if event == "message"
    )


def id_of(where: str) -> str:
    return where.rpartition("/")[2]


async def attempts(redis: Redis, where: str) -> int:
    return int(await redis.hget(Log.keys(id_of(where))[0], "attempt") or 0)


async def send(cloud: Cloud, where: str) -> None:
    """Put one more message for this job in the queue. Any process may receive it."""
    async with cloud.queue() as queue:
        await queue.send_message(b64encode(Message(id_of(where)).encode()).decode())


async def delivered(cloud: Cloud, instance: Instance) -> None:
    """Run the one visible message as the platform delivers it: hide it, run it, delete it."""
    async with cloud.queue() as queue:
        [message] = [found async for found in queue.receive_messages(visibility_timeout=600)]
        body = decoded(message)
        assert await instance.host.queue(JOBS, body) == {"ok": True}
        await queue.delete_message(message)


async def test_a_streamed_post_has_its_tokens_while_its_message_is_hidden(cloud: Cloud) -> None:
    async with cloud.running(listen=False) as instance:
        async with reading(instance.http, ["a", "b"], gate="first", gate_at=1) as reader:
            await reader.until("a")
            assert (await cloud.visible(), await cloud.depth()) == ([], 1)
            cloud.model.open_gate("first")
            wire = await reader.end()
        assert (text_of(wire), wire.events[-1]) == ("ab", "done")
        await cloud.gone()


async def test_off_leaves_it_to_the_trigger(cloud: Cloud) -> None:
    async with (
        cloud.running(listen=False, GATEWAY_DIRECT_START="off") as instance,
        reading(instance.http, ["a"]) as reader,
    ):
        assert [Message.decode(body).id for body in await cloud.visible()] == [id_of(reader.where)]
        assert await attempts(cloud.redis, reader.where) == 0
        await delivered(cloud, instance)
        assert text_of(await reader.end()) == "a"
    assert await cloud.depth() == 0


async def test_nobody_waits_for_the_tokens_of_a_json_post_so_it_is_the_triggers(cloud: Cloud) -> None:
    async with cloud.running(listen=False) as instance:
        where = await instance.start(["a"])
        assert [Message.decode(body).id for body in await cloud.visible()] == [id_of(where)]
        assert await attempts(cloud.redis, where) == 0
        await delivered(cloud, instance)
        assert (await instance.status(where))["text"] == "a"


async def test_always_runs_a_json_post_as_well(cloud: Cloud) -> None:
    async with cloud.running(listen=False, GATEWAY_DIRECT_START="always") as instance:
        document = await instance.until(await instance.start(["a"]), ended)
        assert (document["status"], document["text"]) == ("done", "a")
        await cloud.gone()


FORMATS = {
    "the sample's": ("/api/http_trigger", {"user": "QUESTION"}, True),
    "AI SDK": (
        "/api/chat",
        {
            "id": "c",
            "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "QUESTION"}]}],
        },
        True,
    ),
    "AG-UI": ("/agui/chat", {"threadId": "t", "runId": "r", "messages": "MESSAGES"}, True),
    "chat, streamed": (
        "/v1/chat/completions",
        {"model": "chat", "stream": True, "messages": "MESSAGES"},
        True,
    ),
    "chat, whole": ("/v1/chat/completions", {"model": "chat", "messages": "MESSAGES"}, False),
    "responses, streamed": ("/v1/responses", {"model": "chat", "stream": True, "input": "QUESTION"}, True),
    "responses, whole": ("/v1/responses", {"model": "chat", "input": "QUESTION"}, False),
    "LangGraph, streamed": (
        "/runs/stream",
        {"assistant_id": "chat", "input": {"messages": "MESSAGES"}},
        True,
    ),
    "LangGraph, in a thread": (
        "/threads/t/runs/stream",
        {"assistant_id": "chat", "input": {"messages": "MESSAGES"}},
        True,
    ),
    "LangGraph, awaited": ("/runs/wait", {"assistant_id": "chat", "input": {"messages": "MESSAGES"}}, False),
    "LangGraph, not awaited": ("/runs", {"assistant_id": "chat", "input": {"messages": "MESSAGES"}}, False),
}


async def test_of_the_foreign_formats_those_that_stream_are_started_directly(cloud: Cloud) -> None:
    async with cloud.running(listen=False) as instance:
        for name, (path, body, streamed) in FORMATS.items():
            question = script(["a", f"of {name}"])
            told = json.dumps(body).replace('"MESSAGES"', '[{"role": "user", "content": "QUESTION"}]')
            told = told.replace('"QUESTION"', json.dumps(question))
            asked = len(cloud.model.requests)
            post = asyncio.create_task(
                instance.http.post(path, content=told, headers={"content-type": "application/json"})
            )
            if streamed:
                answer = await post
                assert f"of {name}" in answer.text, answer.text
                assert answer.headers["content-type"].startswith("text/event-stream")
                await cloud.gone()
            else:
                await until(cloud.visible, bool)
                assert len(cloud.model.requests) == asked, name
                await delivered(cloud, instance)
                assert (await post).status_code == 200, name
            assert len(cloud.model.requests) == asked + 1, name


async def test_a_full_process_leaves_it_to_the_queue_until_a_place_is_free(cloud: Cloud) -> None:
    async with cloud.running(listen=False, GATEWAY_WORKER_CONCURRENCY="1") as instance:
        async with reading(instance.http, ["a", "b"], gate="full", gate_at=1) as first:
            await first.until("a")
            async with reading(instance.http, ["c"]) as second:
                assert [Message.decode(body).id for body in await cloud.visible()] == [id_of(second.where)]
                await delivered(cloud, instance)  # A platform delivery needs no place.
                assert text_of(await second.end()) == "c"
            cloud.model.open_gate("full")
            assert text_of(await first.end()) == "ab"
        await cloud.gone()
        async with reading(instance.http, ["d"]) as third:
            assert text_of(await third.end()) == "d"
        await cloud.gone()


async def test_fault_02_when_the_process_is_killed_its_message_comes_to_another(cloud: Cloud) -> None:
    async with (
        cloud.running(listen=False) as first,
        reading(first.http, ["a", "b", "c"], gate="killed directly", gate_at=2) as reader,
    ):
        await reader.until("b")
        await first.host.kill()
        with pytest.raises(httpx.HTTPError):
            await reader.end()
    seen = Wire(reader.raw[: reader.raw.rindex(b"\n\n") + 2])
    assert text_of(seen) == "ab"
    # No process is left that could have sent another message.
    [body] = await until(lambda: cloud.visible(HELD_JOBS), bool)
    assert Message.decode(body).id == id_of(reader.where)
    cloud.model.open_gate("killed directly")
    async with cloud.running() as second:
        answer = await second.http.get(reader.where, headers={**EVENTS, "last-event-id": seen.ids[-1]})
        rest = Wire(answer.content)
        assert (text_of(rest), rest.events[-1]) == ("c", "done")
        log = await cloud.redis.get(Log.keys(id_of(reader.where))[1])
        assert seen.frames + rest.frames == log
        assert await attempts(cloud.redis, reader.where) == 2
        await cloud.gone()


async def test_a_run_that_outlasts_its_lease_keeps_its_message_hidden(cloud: Cloud) -> None:
    async with StorageTap(cloud.azurite) as tap:
        settings = {"AzureWebJobsStorage": tap.connection, "GATEWAY_LEASE_SECONDS": "6"}
        async with (
            cloud.running(listen=False, **settings) as instance,
            reading(instance.http, ["a", "b"], gate="long", gate_at=1) as reader,
        ):
            await reader.until("a")
            sent = await tap.ever()

            async def renewed() -> int:  # A renewal resends it, every 2 seconds.
                assert await cloud.visible(HELD_JOBS) == []
                return await tap.ever()

            await until(renewed, lambda seen: seen >= sent + 4)  # A lease lasts 3 renewals.
            cloud.model.open_gate("long")
            assert text_of(await reader.end()) == "ab"
            await cloud.gone()
            assert await attempts(cloud.redis, reader.where) == 1


async def test_a_second_delivery_while_it_runs_does_nothing_and_nothing_is_left(cloud: Cloud) -> None:
    asked = len(cloud.model.requests)
    async with (
        StorageTap(cloud.azurite) as tap,
        cloud.running(AzureWebJobsStorage=tap.connection, GATEWAY_LEASE_SECONDS="600") as instance,
        reading(instance.http, ["a", "b"], gate="twice", gate_at=1) as reader,
    ):
        await reader.until("a")
        sent = await tap.ever()
        await send(cloud, reader.where)
        await until(
            tap.ever, lambda seen: seen == sent + 1
        )  # The trigger has received it and hidden it again.
        await until(cloud.depth, lambda depth: depth == 2)
        cloud.model.open_gate("twice")
        assert text_of(await reader.end()) == "ab"
        assert await attempts(cloud.redis, reader.where) == 1
        await until(cloud.depth, lambda depth: depth == 1)
    assert len(cloud.model.requests) == asked + 1
    await cloud.clear()  # Hidden for a lease of ten minutes.


async def test_what_was_delivered_twice_is_all_gone_when_the_stream_has_ended(cloud: Cloud) -> None:
    async with (
        cloud.running(GATEWAY_LEASE_SECONDS="1") as instance,
        reading(instance.http, ["a", "b"], gate="thrice", gate_at=1) as reader,
    ):
        await reader.until("a")
        for _ in range(2):
            await send(cloud, reader.where)
        await until(cloud.visible, lambda seen: not seen)  # The trigger has received or hidden them.
        assert await cloud.depth() <= 5  # An old and a new message may overlap.
        cloud.model.open_gate("thrice")
        assert text_of(await reader.end()) == "ab"
        await cloud.gone()
        assert await attempts(cloud.redis, reader.where) == 1


async def test_fault_06_what_the_queue_does_not_take_is_503_and_nothing_is_begun(cloud: Cloud) -> None:
    known, asked = set(await cloud.redis.keys("*:job:*")), len(cloud.model.requests)
    async with (
        StorageTap(cloud.azurite) as tap,
        cloud.running(listen=False, AzureWebJobsStorage=tap.connection) as instance,
    ):
        tap.cuts = True
        answer = await instance.http.post("/stream", json={"user": script(["never"])}, headers=EVENTS)
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
        assert await tap.ever() == TRIES
        [job] = set(await cloud.redis.keys("*:job:*")) - known
        assert await cloud.redis.hmget(job, "status", "attempt", "confirmed") == [b"queued", b"0", None]
        tap.cuts = False
        async with reading(instance.http, ["a"]) as reader:
            assert text_of(await reader.end()) == "a"
        await cloud.gone()
    assert len(cloud.model.requests) == asked + 1


async def test_a_repeated_post_is_one_message_and_one_run(cloud: Cloud) -> None:
    asked = len(cloud.model.requests)
    again = {"idempotency-key": "again"}
    async with cloud.running(listen=False) as one, cloud.running(listen=False) as other:
        async with (
            reading(one.http, ["a", "b"], gate="again", gate_at=1, headers=again) as first,
            reading(one.http, ["a", "b"], gate="again", gate_at=1, headers=again) as second,
            reading(other.http, ["a", "b"], gate="again", gate_at=1, headers=again) as third,
        ):
            readers = (first, second, third)
            for reader in readers:
                await reader.until("a")
            assert await cloud.depth() == 1
            cloud.model.open_gate("again")
            assert [text_of(await reader.end()) for reader in readers] == ["ab"] * 3
            assert len({reader.where for reader in readers}) == 1
        await cloud.gone()
    assert len(cloud.model.requests) == asked + 1


@asynccontextmanager
async def process(
    cloud: Cloud, mode: str, **settings: str
) -> AsyncIterator[tuple[GatewayProcess, httpx.AsyncClient]]:
    """Run a process of the other host on the same queue."""
    environment = {
        **cloud.model.environment(),
        "REDIS_URL": cloud.store.url,
        "GATEWAY_QUEUE": "azure-storage",
        "AzureWebJobsStorage": cloud.azurite.connection,
        "GATEWAY_METRICS": "prometheus",
        **settings,
    }
    async with (
        GatewayProcess(mode, environment) as running,
        httpx.AsyncClient(base_url=running.url, timeout=LIMIT_SECONDS) as http,
    ):
        yield running, http


async def direct_starts(http: httpx.AsyncClient) -> int:
    """Return the count. It may be one second old, because one reading of the metrics is shared."""
    lines = (await http.get("/metrics")).text.splitlines()
    return sum(
        int(float(line.split()[1])) for line in lines if line.startswith("holdfast_direct_starts_total")
    )


async def test_all_starts_directly_and_counts_what_its_worker_runs(cloud: Cloud) -> None:
    async with process(cloud, "all", GATEWAY_WORKER_CONCURRENCY="1") as (_, http):
        async with reading(http, ["warm"]) as reader:  # Now its worker runs.
            await reader.end()
        await cloud.gone()
        before = await direct_starts(http)
        async with reading(http, ["a", "b"], gate="all", gate_at=1) as first:
            await first.until("a")
            assert (await cloud.visible(), await cloud.depth()) == ([], 1)
            await until(lambda: direct_starts(http), lambda seen: seen == before + 1)
            async with reading(http, ["c"]) as second:
                assert len(await cloud.visible()) == 1  # No place is free, also not for the worker.
                cloud.model.open_gate("all")
                assert text_of(await first.end()) == "ab"
                assert text_of(await second.end()) == "c"  # The worker ran it.
        await cloud.gone()
        where = (
            await http.post("/stream", json={"user": script(["d", "e"], gate="worker", gate_at=1)})
        ).headers["location"]

        async def text() -> Any:
            return (await http.get(where, headers=JSON)).json()["text"]

        await until(text, lambda seen: seen == "d")
        async with reading(http, ["f"]) as third:
            assert len(await cloud.visible()) == 1
            cloud.model.open_gate("worker")
            assert text_of(await third.end()) == "f"
        await cloud.gone()


async def test_a_process_that_is_told_to_stop_hands_its_direct_runs_over(cloud: Cloud) -> None:
    lease = {"GATEWAY_LEASE_SECONDS": "600"}
    async with process(cloud, "all", **lease) as (running, http):
        async with reading(http, ["warm"]) as reader:
            await reader.end()
        before = await direct_starts(http)
        async with reading(http, ["a", "b"], gate="stopped", gate_at=1) as reader:
            await reader.until("a")
            await until(lambda: direct_starts(http), lambda seen: seen == before + 1)
            assert await running.stop() == 0
            seen = await reader.end()
    [body] = await cloud.visible()  # Visible at once, not after ten minutes.
    assert Message.decode(body).id == id_of(reader.where)
    cloud.model.open_gate("stopped")
    async with process(cloud, "worker", **lease), process(cloud, "web", **lease) as (_, http):
        rest = Wire((await http.get(reader.where, headers={**EVENTS, "last-event-id": seen.ids[-1]})).content)
        assert text_of(seen) + text_of(rest) == "ab"
        assert "reset" not in rest.events
        await cloud.gone()


async def test_a_web_process_runs_nothing(cloud: Cloud) -> None:
    async with process(cloud, "web", GATEWAY_DIRECT_START="always") as (_, http):
        for _ in range(2):
            async with reading(http, ["a"]) as reader:
                assert [Message.decode(body).id for body in await cloud.visible()] == [id_of(reader.where)]
                async with process(cloud, "worker"):
                    assert text_of(await reader.end()) == "a"
                    await cloud.gone()
        assert await direct_starts(http) == 0
