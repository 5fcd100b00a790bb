"""`python -m gateway`: what it prints, when it refuses to start, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from time import monotonic

import httpx
import pytest

from gateway.process import GRACE_SECONDS, WORKING
from tests.hosts import NOBODY
from tests.support.model_server import DEFAULT_TEXT, ModelServer, script
from tests.support.processes import GatewayProcess

BOUND_SECONDS = 60


async def refusal(mode: str, environment: dict[str, str]) -> str:
    """Start a process that refuses to start. Return the last line that it prints; it prints no stack."""
    refused = GatewayProcess(mode, environment)
    with pytest.raises(AssertionError, match="the process ended"):
        await refused.__aenter__()
    assert await refused.stop() != 0
    said = refused.log()
    assert "Traceback" not in said
    return said.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PORT", "canary", "PORT must be a number"),
        ("GATEWAY_LEASE_SECONDS", "0", "GATEWAY_LEASE_SECONDS must be more than 0"),
        ("GATEWAY_QUEUE", "canary", "GATEWAY_QUEUE must be redis"),
        ("GATEWAY_LOG_FORMAT", "canary", "GATEWAY_LOG_FORMAT must be text or json"),
        ("GATEWAY_CHAINS", "no_such_module", "GATEWAY_CHAINS: there is no module no_such_module"),
    ],
)
async def test_a_wrong_setting_is_told_in_one_sentence(name: str, value: str, sentence: str) -> None:
    said = await refusal("web", {"REDIS_URL": "redis://127.0.0.1:1", name: value})
    assert sentence in said
    assert "canary" not in said


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["web", "worker"])
async def test_web_and_worker_need_a_redis_that_both_reach(mode: str) -> None:
    refused = GatewayProcess(mode, {})
    try:
        if mode == "web":
            with pytest.raises(AssertionError, match="the process ended"):
                await refused.__aenter__()
        else:
            await refused.__aenter__()
            await refused.ended()
    finally:
        assert await refused.stop() != 0
    assert (
        refused.log()
        .strip()
        .splitlines()[-1]
        .endswith("REDIS_URL must be set: web and worker meet in a Redis that both reach")
    )


async def test_a_port_in_use_is_told_with_a_command(redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = await refusal("web", {"REDIS_URL": redis_url, "PORT": str(port)})
    assert said.startswith("  PORT=")  # test_errors_told.py checks the whole command.


async def test_a_worker_serves_its_probes_and_nothing_else(redis_url: str) -> None:
    key = "k" * 32
    settings = {
        "REDIS_URL": redis_url,
        "GATEWAY_WORKER_PORT": "0",
        "GATEWAY_METRICS": "prometheus",
        "GATEWAY_METRICS_KEY": key,
        "GATEWAY_LOG_FORMAT": "json",
    }
    async with GatewayProcess("worker", settings) as worker:
        url = (await worker.line(WORKING)).rpartition(" ")[2]
        async with httpx.AsyncClient(base_url=url, timeout=BOUND_SECONDS) as http:
            assert (await http.get("/health")).json()["status"] == "ok"
            ready = await http.get("/ready")
            assert (ready.status_code, ready.json()["status"]) == (200, "ready")
            assert (await http.get("/metrics")).status_code == 401
            shown = await http.get("/metrics", headers={"authorization": f"Bearer {key}"})
            assert "\nholdfast_running 0.0" in shown.text
            for path in ("/", "/stream", f"/stream/{NOBODY}"):
                assert (await http.get(path)).json()["code"] == "no_route"
        assert await worker.stop() == 0
    assert {json.loads(line)["logger"] for line in worker.log().splitlines()} >= {"holdfast.request"}


async def test_a_workers_metrics_are_not_shown_to_everybody(redis_url: str) -> None:
    shown = {"GATEWAY_WORKER_PORT": "0", "GATEWAY_METRICS": "prometheus", "HOST": "0.0.0.0"}
    worker = GatewayProcess("worker", {"REDIS_URL": redis_url, **shown})
    async with worker:
        assert await worker.ended() == 2
    said = worker.log().splitlines()[-1]
    assert said.endswith("HOST=0.0.0.0 can be reached by others: set GATEWAY_METRICS_KEY")


@pytest.mark.slow
async def test_all_starts_with_nothing_and_its_curl_line_works() -> None:
    async with ModelServer() as model, GatewayProcess("all", model.environment(), anew=True) as gateway:
        assert any(line.startswith("Store: ") for line in gateway.lines)
        first = (await gateway.line("curl ")).strip()
        command = first + "\n" + await gateway.line(" ")
        shell = await asyncio.create_subprocess_exec(
            *("sh", "-c", command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(BOUND_SECONDS):
            said, _ = await shell.communicate()
        assert shell.returncode == 0
        assert said.count(b"delta_content") == len(DEFAULT_TEXT.split())
        assert said.rstrip().splitlines()[-2] == b"event: done"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopped_process_ends_its_readers_cleanly_and_exits_0(number: int) -> None:
    async with ModelServer() as model, GatewayProcess("all", model.environment()) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=BOUND_SECONDS) as client:
            question = {"user": script(["a", "b"], gate="never", gate_at=1)}
            where = (await client.post("/stream", json=question)).headers["location"]
            readers = [asyncio.create_task(_until_the_end(client, where)) for _ in range(5)]
            await model.until(requests=1)
            await _status_shows(client, where, "a")
            began = monotonic()
            gateway.signal(number)
            texts = await asyncio.gather(*readers)  # A connection that does not end cleanly raises an error.
        assert await gateway.ended() == 0
        assert monotonic() - began < 3 * GRACE_SECONDS
        assert all(b'"a"' in text and b"event: done" not in text for text in texts)
        assert "Traceback" not in gateway.log()


async def _until_the_end(client: httpx.AsyncClient, where: str) -> bytes:
    answer = await client.get(where, headers={"accept": "text/event-stream"})
    assert answer.status_code == 200
    return answer.content


async def _status_shows(client: httpx.AsyncClient, where: str, text: str) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        while (await client.get(where, headers={"accept": "application/json"})).json()["text"] != text:
            pass
