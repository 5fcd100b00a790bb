"""The Python client on both hosts: exact results after any cut, and a clear error when that is impossible."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.client import (
    Event,
    Gateway,
    GatewayError,
    Refused,
    Stage,
    StreamCancelled,
    StreamFailed,
    SyncGateway,
    Unreachable,
)
from gateway.client import stream as client_stream
from tests.hosts import NOBODY, Host
from tests.support.cutter import Cutter
from tests.support.model_server import script

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = [f"{number} wörd\n" for number in range(40)]
TEXT = "".join(WORDS)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the client's pauses between attempts, because these tests do not test the pauses."""
    monkeypatch.setattr(client_stream, "BACKOFF_SECONDS", (0.01, 0.05))


@pytest.fixture
async def gateway(host: Host) -> AsyncIterator[Gateway]:
    async with Gateway(str(host.http.base_url)) as made:
        yield made


async def test_three_lines_follow_a_stream_to_its_end(gateway: Gateway) -> None:
    said = ""
    async for event in gateway.stream(user=script(WORDS)):
        said += event.text
    assert said == TEXT


async def test_a_result_has_the_text_of_each_stage_and_the_usage(gateway: Gateway) -> None:
    stream = gateway.stream(messages=[{"role": "user", "content": script(["a", "b"])}], metadata={"n": 1})
    result = await stream.result()
    assert (result.text, result.finish_reason) == ("ab", "stop")
    assert result.stages == stream.stages == [Stage("chat", 1, "finished", "ab")]
    assert result.usage["output_tokens"] > 0
    assert (await gateway.status(stream.id))["metadata"] == {"n": 1}
    assert await gateway.follow(stream.id).result() == result
    assert [event async for event in gateway.follow(stream.id, stream.last_event_id)] == []
    again = await gateway.follow(stream.id, stream.last_event_id).result()  # The stream had already ended.
    assert (again.text, again.stages, again.usage) == ("ab", result.stages, result.usage)


async def test_a_failed_stream_is_tried_again(gateway: Gateway) -> None:
    stream = gateway.stream(user=script(["a"], status=400))
    with pytest.raises(StreamFailed):
        await stream.result()
    again = gateway.retry(stream.id, "chat", params={"n": 1})
    with pytest.raises(StreamFailed) as told:
        await again.result()
    assert (told.value.code, again.id != stream.id) == ("model_invalid_request", True)
    assert (await gateway.status(again.id))["retries"] == stream.id
    with pytest.raises(Refused) as refused:
        await gateway.retry(stream.id, "nothing").result()
    assert (refused.value.status, refused.value.problem["field"]) == (422, "from")


async def test_through_cuts_at_random_bytes_each_event_comes_once_and_one_job_is_run(host: Host) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    bounds = [0, 0, rng.randrange(1, 200), *(rng.randrange(200, 900) for _ in range(10))]
    before = len(host.model.requests)
    async with Cutter(str(host.http.base_url), bounds) as cutter, Gateway(cutter.url) as gateway:
        stream = gateway.stream(user=script(WORDS, pace=0.005))
        events = [event async for event in stream]
    assert cutter.cuts >= 10
    offsets = [int(event.id.partition("-")[0]) for event in events]
    assert offsets == sorted(set(offsets))
    assert "".join(event.text for event in events) == stream.text == TEXT
    log = await host.log(f"/stream/{stream.id}")
    assert [event.id.encode() for event in events] == re.findall(rb"^id: (\S+)$", log, re.MULTILINE)
    assert len(host.model.requests) == before + 1


async def test_a_stream_is_cancelled_and_says_so(gateway: Gateway, host: Host) -> None:
    stream = gateway.stream(user=script(["a", "b"], gate=f"client-{host.name}", gate_at=1))
    events = aiter(stream)
    while (await anext(events)).text != "a":
        pass
    assert (await gateway.cancel(stream.id))["status"] == "cancelled"
    assert [event.type async for event in events] == ["cancelled"]
    for after in ("", stream.last_event_id):
        with pytest.raises(StreamCancelled, match="the stream was cancelled"):
            await gateway.follow(stream.id, after).result()


async def test_a_failure_keeps_the_text_and_names_its_code(gateway: Gateway) -> None:
    with pytest.raises(StreamFailed) as failed:
        await gateway.stream(user=script(["kept", "x"], broken_at=1)).result()
    assert (failed.value.text, bool(failed.value.code)) == ("kept", True)
    assert "x" not in str(failed.value)
    stream = gateway.stream(user=script(["kept", "x"], broken_at=1))
    [*_, last] = [event async for event in stream]
    with pytest.raises(StreamFailed) as again:  # The stream had already ended.
        await gateway.follow(stream.id, last.id).result()
    assert (again.value.text, again.value.code) == ("kept", last.data["code"])


async def test_a_refusal_is_told_at_once_with_its_problem(gateway: Gateway) -> None:
    with pytest.raises(Refused) as refused:
        await gateway.stream(user="").result()
    assert (refused.value.status, refused.value.code) == (422, "invalid")
    assert refused.value.problem["field"] == "user"
    for call in (gateway.status(NOBODY), gateway.cancel(NOBODY), gateway.follow(NOBODY).result()):
        with pytest.raises(Refused) as refused:
            await call
        assert refused.value.code == "not_found"


async def test_the_same_key_is_the_same_stream(gateway: Gateway, host: Host) -> None:
    one, two = (gateway.stream(user=script(["a"]), key=f"client-key-{host.name}") for _ in range(2))
    await asyncio.gather(one.result(), two.result())
    assert one.id == two.id


async def test_nobody_there_is_told_when_the_patience_is_at_its_end() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.transport.abort(), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Gateway(url, patience=0.3) as gateway:
        for call in (gateway.stream(user="x").result(), gateway.status(NOBODY)):
            with pytest.raises(Unreachable, match="nothing was heard of the gateway") as told:
                await call
            assert isinstance(told.value.__cause__, httpx.TransportError)
    server.close()
    await server.wait_closed()


async def test_code_without_an_event_loop_has_the_same(host: Host) -> None:
    def follow() -> tuple[str, str, str]:
        with SyncGateway(str(host.http.base_url)) as gateway:
            stream = gateway.stream(user=script(["a", "b"]))
            first = next(iter(stream))
            said = "".join(event.text for event in gateway.follow(stream.id))
            assert gateway.cancel(stream.id)["status"] == gateway.status(stream.id)["status"] == "done"
            return first.type, said, gateway.follow(stream.id).result().text

    assert await asyncio.to_thread(follow) == ("start", "ab", "ab")


class Scripted:
    """An httpx transport with fixed answers, for answers that our gateway rarely gives."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answers.pop(0)


def frames(*parts: bytes, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, content=b"".join(parts), headers={"x-stream-id": NOBODY, **headers})


def client_of(scripted: Scripted) -> Gateway:
    http = httpx.AsyncClient(transport=httpx.MockTransport(scripted), base_url="http://gateway")
    return Gateway("http://gateway", http=http)


START = b'id: 0-aaaa\nevent: start\ndata: {"id":"x","chain":"c","stages":["c"],"created_at":"t"}\n\n'
STAGE = b'id: 90-aaaa\nevent: stage\ndata: {"name":"c","run":1,"index":0,"count":1,"state":"started"}\n\n'
DONE = (
    b'id: 500-aaaa\nevent: done\ndata: {"finish_reason":"stop","usage":{},"attempts":1,"duration_ms":1}\n\n'
)
VOID = b'event: reset\ndata: {"attempt":2,"stage":"c","discard_after":"90-aaaa","reason":"r"}\n\n'


def said(offset: int, text: str) -> bytes:
    return b'id: %d-aaaa\ndata: {"deployment":"m","delta_content":"%b","stage":"c"}\n\n' % (
        offset,
        text.encode(),
    )


async def test_the_text_is_the_fold_of_the_events_and_a_lost_log_begins_it_anew() -> None:
    lost = b'id: 0\nevent: reset\ndata: {"reason":"log_lost"}\n\n'
    scripted = Scripted(
        frames(b"retry: 1\n", START, STAGE, said(200, "old"), b"id: 300-bbbb\n" + VOID, said(400, "new")),
        frames(b"retry: 1\n", lost, START, STAGE, said(200, "other"), DONE),
    )
    async with client_of(scripted) as gateway:
        stream = gateway.stream(user="q")
        events = [event async for event in stream]
    assert [event.type for event in events].count("reset") == 2
    assert (stream.text, stream.last_event_id) == ("other", "500-aaaa")
    assert scripted.asked[1].headers["last-event-id"] == "400-aaaa"


async def test_a_type_that_this_release_does_not_know_is_given_all_the_same() -> None:
    odd = b'id: 100-aaaa\nevent: from-later\ndata: {"a":1}\n\n'
    async with client_of(Scripted(frames(START, odd), frames(DONE))) as gateway:
        events = [event async for event in gateway.stream(user="q")]
    assert Event("100-aaaa", "from-later", {"a": 1}) in events


async def test_a_process_with_too_many_readers_is_asked_again_and_over_quota_is_told() -> None:
    problem = b'{"code":"too_many_readers","detail":"d"}'
    busy = {"retry-after": "0"}
    scripted = Scripted(
        frames(START), frames(problem, status=429, **busy), frames(b"", status=503), frames(DONE)
    )
    async with client_of(scripted) as gateway:
        assert [event.type async for event in gateway.stream(user="q")] == ["start", "done"]
    over = frames(b'{"code":"over_quota","detail":"d"}', status=429, **{"retry-after": "17"})
    async with client_of(Scripted(over)) as gateway:
        with pytest.raises(Refused) as refused:
            await gateway.stream(user="q").result()
    assert (refused.value.code, refused.value.retry_after) == ("over_quota", 17)


async def test_204_is_the_end_and_an_answer_without_a_problem_is_a_refusal() -> None:
    async with client_of(Scripted(frames(b"", status=204))) as gateway:
        assert [event async for event in gateway.follow(NOBODY, "500-aaaa")] == []
    async with client_of(Scripted(frames(b"<html>", status=403))) as gateway:
        with pytest.raises(Refused, match="HTTP 403"):
            await gateway.follow(NOBODY).result()


async def test_all_runs_of_a_stage_and_what_a_graph_has_asked_are_in_the_result() -> None:
    def run(number: int, name: str = "part") -> bytes:
        told = f'"name":"{name}","run":{number},"index":0,"count":1,"state":"started"'.encode()
        return b"id: %d-aaaa\nevent: stage\ndata: {%b}\n\n" % (number * 100, told)

    def says(offset: int, delta: bytes, number: int) -> bytes:
        told = b'{"deployment":"m","delta_content":"%b","stage":"part","run":%d}' % (delta, number)
        return b"id: %d-aaaa\ndata: %b\n\n" % (offset, told)

    asks = DONE.replace(b'"stop"', b'"interrupted","interrupts":[{"id":"1","value":"sure?"}]')
    parts = (START, run(1), says(150, b"one", 1), run(2), says(250, b"two", 2), asks)
    async with client_of(Scripted(frames(*parts))) as gateway:
        result = await gateway.stream(user="q").result()
    assert [(stage.run, stage.text) for stage in result.stages] == [(1, "one"), (2, "two")]
    assert (result.finish_reason, result.interrupts) == ("interrupted", [{"id": "1", "value": "sure?"}])


async def test_a_stream_whose_id_never_came_is_cancelled_by_its_key() -> None:
    made, ended = httpx.Response(202, json={"id": NOBODY}), httpx.Response(200, json={"status": "cancelled"})
    scripted = Scripted(made, ended)
    async with client_of(scripted) as gateway:
        stream = gateway.stream(user="q", key="mine")
        assert await stream.cancel() == {"status": "cancelled"}
    post, delete = scripted.asked
    assert (post.headers["idempotency-key"], post.content) == ("mine", b'{"user":"q"}')
    assert (delete.method, delete.url.path) == ("DELETE", f"/stream/{NOBODY}")


async def test_what_is_no_gateway_is_told_as_such_and_a_broken_answer_is_asked_for_again() -> None:
    for answer in (httpx.Response(200, content=b"<html>"), frames(b"id: 1-aaaa\ndata: {\n\n")):
        async with client_of(Scripted(answer)) as gateway:
            with pytest.raises(GatewayError, match="no gateway"):
                await gateway.stream(user="q").result()
    async with client_of(Scripted(httpx.Response(200, content=b"<html>"))) as gateway:
        with pytest.raises(GatewayError, match="not JSON"):
            await gateway.status(NOBODY)
    async with client_of(Scripted(Broken(), frames(START, DONE))) as gateway:
        assert [event.type async for event in gateway.stream(user="q")] == ["start", "done"]


class Broken(httpx.Response):
    """An answer whose compression was damaged on the way."""

    def __init__(self) -> None:
        super().__init__(200, stream=httpx.ByteStream(b"no gzip"), headers={"content-encoding": "gzip"})
        self.headers["x-stream-id"] = NOBODY


async def test_only_what_is_a_url_of_http_is_taken() -> None:
    with pytest.raises(ValueError, match="begins with http"):
        Gateway("localhost:7071")


async def test_an_input_may_be_null() -> None:
    scripted = Scripted(frames(START, DONE))
    async with client_of(scripted) as gateway:
        await gateway.stream(input=None, chain="c").result()
    assert scripted.asked[0].content == b'{"chain":"c","input":null}'
