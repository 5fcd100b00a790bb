"""One trace from the POST to the model's call, through processes and attempts; the metrics; nothing said."""

from __future__ import annotations

import httpx
import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)

from gateway.observe import telemetry
from gateway.observe.export import OwnDecision
from tests.functions_host.client import FunctionsHost
from tests.hosts import JSON, LIMIT_SECONDS, functions_environment, quick_app, until
from tests.support.azurite import Azurite
from tests.support.collector import Collector, Span
from tests.support.model_server import ModelServer, script
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
UNKEPT = {"traceparent": f"00-{TRACE}-{PARENT}-00"}  # its caller keeps no trace of it
CANARY = "canary-in-a-prompt"
SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
METRICS = {
    "holdfast.first_token",
    "holdfast.token_rate",
    "holdfast.queue_wait",
    "holdfast.attempts",
    "holdfast.readers",
    "holdfast.relay_lag",
    "holdfast.append",
    "holdfast.request",
    "holdfast.streams_started",
    "holdfast.streams_ended",
    "holdfast.running",
    "holdfast.queue_depth",
}


def one(spans: list[Span], name: str) -> Span:
    [found] = [span for span in spans if span.name == name]
    return found


async def test_fault_78_one_trace_goes_through_two_processes_though_its_caller_says_not_to_keep_it() -> None:
    async with Collector() as collector, ModelServer() as model, RedisServer() as store:
        shared = {**model.environment(), "REDIS_URL": store.url}
        async with (
            GatewayProcess(
                "web", shared | collector.environment("web") | {"GATEWAY_METRICS": "prometheus"}
            ) as web,
            GatewayProcess("worker", shared | collector.environment("worker")),
            httpx.AsyncClient(base_url=web.url, timeout=LIMIT_SECONDS) as http,
        ):
            body = {"user": script([CANARY, "b"])}
            headers = {**UNKEPT, "accept": "text/event-stream"}
            assert b"event: done" in (await http.post("/stream", json=body, headers=headers)).content
            names = {
                "create stream",
                "send holdfast-jobs",
                "process holdfast-jobs",
                "stage chat",
                "chat scripted",
            }
            spans = await collector.until_spans(TRACE, names)
            await collector.until_metrics(METRICS)
            shown = (await http.get("/metrics")).text  # beside OTLP, not instead
        created, sent = one(spans, "create stream"), one(spans, "send holdfast-jobs")
        attempt, stage = one(spans, "process holdfast-jobs"), one(spans, "stage chat")
        call = one(spans, "chat scripted")
        assert (created.service, created.kind, created.parent) == ("web", SERVER, PARENT)
        assert (sent.kind, sent.parent) == (PRODUCER, created.id)
        assert (attempt.service, attempt.kind, attempt.parent) == ("worker", CONSUMER, created.id)
        assert (stage.parent, call.parent, call.kind) == (attempt.id, stage.id, CLIENT)
        assert attempt.attributes["holdfast.stream.id"] == created.attributes["holdfast.stream.id"]
        assert attempt.attributes["holdfast.attempt"] == 1
        assert call.attributes["gen_ai.request.model"] == "scripted"
        assert call.attributes["gen_ai.usage.output_tokens"] > 0
        assert not any(CANARY.encode() in raw for raw in collector.raw)
        assert collector.metrics["holdfast.first_token"] == "s"
        assert 'holdfast_streams_started_total{chain="chat"} 1.0' in shown
        assert CANARY not in shown


@pytest.mark.parametrize("flag", ["00", "01"])
def test_fault_78_what_a_caller_keeps_decides_nothing_here(flag: str) -> None:
    def decided(inner: Sampler, parent: Context) -> bool:
        given = OwnDecision(inner).should_sample(parent, int(TRACE, 16), "x", SpanKind.SERVER, {}, [])
        return given.decision is Decision.RECORD_AND_SAMPLE

    callers = telemetry.context_of(f"00-{TRACE}-{PARENT}-{flag}")
    assert decided(ParentBased(ALWAYS_ON), callers)
    assert not decided(ParentBased(ALWAYS_OFF), callers)
    for ratio in (0.01, 0.99):  # by the trace's id, so alike in every process
        by_id = TraceIdRatioBased(ratio)
        first = by_id.should_sample(Context(), int(TRACE, 16), "x").decision is Decision.RECORD_AND_SAMPLE
        assert decided(ParentBased(by_id), callers) is first
    here = SpanContext(int(TRACE, 16), int(PARENT, 16), is_remote=False, trace_flags=TraceFlags(int(flag)))
    within = set_span_in_context(NonRecordingSpan(here))  # a span follows its parent in this process
    assert decided(ParentBased(ALWAYS_ON), within) is (flag == "01")


async def test_an_attempt_links_to_the_one_before() -> None:
    async with Collector() as collector, ModelServer() as model, RedisServer() as store:
        shared = {**model.environment(), "REDIS_URL": store.url, "GATEWAY_LEASE_SECONDS": "1"}
        async with (
            GatewayProcess("web", shared) as web,
            httpx.AsyncClient(base_url=web.url, timeout=LIMIT_SECONDS) as http,
        ):
            async with GatewayProcess("worker", shared | collector.environment("first")) as worker:
                body = {"user": script(["a", "b"], gate="linked", gate_at=1)}
                where = (await http.post("/stream", json=body, headers=CALLER)).headers["location"]

                async def text() -> str:
                    return str((await http.get(where, headers=JSON)).json()["text"])

                await until(text, lambda seen: seen == "a")
                await worker.stop()  # in order, so that its spans are exported
            model.open_gate("linked")
            async with GatewayProcess("worker", shared | collector.environment("second")):
                await until(text, lambda seen: seen == "ab")
                async with http.stream("GET", where, headers={"accept": "text/event-stream"}) as live:
                    await live.aread()
        spans = await collector.until_spans(TRACE, {"process holdfast-jobs"})
        by_service = {span.service: span for span in spans if span.name == "process holdfast-jobs"}
        assert by_service["second"].links == [by_service["first"].id]
        assert by_service["second"].attributes["holdfast.attempt"] == 2


@pytest.mark.functions
async def test_the_functions_host_traces_alike(tmp_path_factory: pytest.TempPathFactory) -> None:
    app = quick_app(tmp_path_factory.mktemp("app"))
    async with (
        Collector() as collector,
        ModelServer() as model,
        RedisServer() as store,
        Azurite() as azurite,
        FunctionsHost(
            app,
            functions_environment(store.url, model, azurite.connection) | collector.environment("app"),
            listen=True,
        ) as host,
        httpx.AsyncClient(base_url=host.url, timeout=LIMIT_SECONDS) as http,
    ):
        headers = {**CALLER, "accept": "text/event-stream"}
        await http.post("/stream", json={"user": script(["a"])}, headers=headers)
        names = {
            "create stream",
            "send holdfast-jobs",
            "process holdfast-jobs",
            "stage chat",
            "chat scripted",
        }
        spans = await collector.until_spans(TRACE, names)
        assert one(spans, "process holdfast-jobs").parent == one(spans, "create stream").id
