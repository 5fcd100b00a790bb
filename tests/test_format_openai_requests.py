"""Requests that OpenAI's endpoints refuse: in OpenAI's form, with our codes, and without starting a run."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AuthenticationError, BadRequestError, NotFoundError, RateLimitError

from gateway.formats.openai import chat, fields, responses
from gateway.protocol import ANONYMOUS
from gateway.protocol.errors import HoldfastError, Invalid
from gateway.settings import Settings
from gateway.store.log import Log
from gateway.store.quota import Quota
from gateway.streams.service import Gateway
from gateway.streams.start import Start
from tests.callers import ALICE, BOB, METRICS_KEY, MOST_STREAMS, ORIGIN, Guarded, by_key, flooding
from tests.hosts import NOBODY, Host, until
from tests.openai_clients import javascript, python, status
from tests.openai_rules import CHAT_RULES, HI, RESPONSES_RULES, SURROGATE
from tests.support.model_server import ModelServer, script

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def refused(answer: httpx.Response, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    """Check the form of the error and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    return error


CHAT_BASE: dict[str, Any] = {"model": "chat", "messages": [HI]}
RESPONSES_BASE: dict[str, Any] = {"model": "chat", "input": "hi"}
UNOPENED = Gateway(Settings(), {"chat": ["chat"]})


async def responses_asked(body: Any) -> tuple[Start, responses.Asked]:
    draft = responses.parse(body, UNOPENED)
    if draft.decisions:  # No stream exists for the decisions, so only their form is checked.
        raise Invalid("input", "is an answer")
    return await responses.with_what_was_said(draft, UNOPENED, ANONYMOUS)


async def test_a_broken_rule_names_the_clients_field() -> None:
    for body, field in CHAT_RULES:
        with pytest.raises(Invalid) as caught:
            chat.parse(CHAT_BASE | body, UNOPENED)
        assert caught.value.extensions["field"] == field
    for body, field in RESPONSES_RULES:
        with pytest.raises(Invalid) as caught:
            await responses_asked(RESPONSES_BASE | body)
        assert caught.value.extensions["field"] == field


@pytest.mark.parametrize(
    ("path", "base", "rules"),
    [(CHAT, CHAT_BASE, CHAT_RULES[::12]), (RESPONSES, RESPONSES_BASE, RESPONSES_RULES[::6])],
    ids=["chat", "responses"],
)
async def test_what_is_refused_starts_nothing(
    host: Host, path: str, base: dict[str, Any], rules: list[tuple[dict[str, Any], str]]
) -> None:
    before = set(await host.redis.keys("*:job:*"))
    for body, param in rules:
        answer = await post(host, path, base | body)
        assert refused(answer, 422, "invalid", param)["type"] == "invalid_request_error"
    nothing: tuple[Any, ...] = ([], None, "x", 1)
    for whole in nothing:
        refused(await post(host, path, whole), 422, "invalid", "body")
    refused(await host.http.post(path, json={**base, "model": "gpt-4o"}), 404, "model_not_found", "model")
    is_json = {"content-type": "application/json"}
    refused(await host.http.post(path, content=b"{", headers=is_json), 400, "malformed")
    refused(await host.http.post(path, content=b"{}"), 415, "not_json")
    refused(await host.http.post(path, content=b" " * 300_000, headers=is_json), 413, "too_large")
    long = await host.http.post(path, json=base, headers={"idempotency-key": "x" * 256})
    refused(long, 422, "invalid", "Idempotency-Key")
    assert not set(await host.redis.keys("*:job:*")) - before


async def post(host: Host, path: str, body: Any) -> httpx.Response:
    """Send the body as ASCII JSON, which can contain half a surrogate pair."""
    is_json = {"content-type": "application/json"}
    return await host.http.post(path, content=json.dumps(body), headers=is_json)


async def test_what_official_clients_send_beside_is_taken(host: Host) -> None:
    neutral = dict.fromkeys((*fields.NEUTRAL, *fields.IGNORED, *fields.HANDED_ON))
    more: dict[str, Any] = {
        **neutral,
        "n": 1,
        "tools": [],
        "tool_choice": "auto",
        "temperature": 0.5,
        "max_tokens": 9,
        "stop": ["x"],
        "logprobs": False,
        "top_logprobs": 0,
        "seed": 7,
        "user": "u",
        "store": True,
        "prediction": {"a": 1},
        "service_tier": "auto",
        "metadata": {"a": "b"},
        "logit_bias": {"1": -1},
        "parallel_tool_calls": True,
    }
    said: list[Any] = [
        {"role": "developer", "name": "x", "content": [{"type": "text", "text": "one"}]},
        {"role": "assistant", "content": None, "refusal": "no", "tool_calls": None, "audio": None},
        {"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]},
    ]
    taken = [
        {"role": "developer", "content": "one"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]},
    ]
    body = {**more, "model": "mirror", "response_format": {"type": "text"}, "messages": said}
    answer = await host.http.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    told, params = json.loads(answer.json()["choices"][0]["message"]["content"])
    assert told == taken
    handed = {
        "temperature": 0.5,
        "max_tokens": 9,
        "stop": ["x"],
        "seed": 7,
        "user": "u",
        "logit_bias": {"1": -1},
    }
    assert {name: value for name, value in params.items() if name in fields.HANDED_ON} == handed
    items: list[Any] = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}, INPUT_IMAGE]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "refusal", "refusal": "no"}],
            "status": "completed",
        },
        {"type": "reasoning", "summary": []},
    ]
    text = {"format": {"type": "text"}, "verbosity": "low"}
    answer = await host.http.post(RESPONSES, json={**more, "model": "mirror", "text": text, "input": items})
    assert answer.status_code == 200, answer.text
    told, _ = json.loads(answer.json()["output"][0]["content"][0]["text"])
    assert told == [taken[2], taken[1]]
    assert answer.json()["metadata"] == {"a": "b"}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}}
INPUT_IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"}

NAMES = sorted(
    {*fields.NEUTRAL, *fields.IGNORED, *fields.HANDED_ON}
    | {"messages", "input", "stream", "stream_options", "instructions", "previous_response_id"}
    | {"background", "store", "metadata", "model"}
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["user", "assistant", "message", "text", "input_text", "image_url", "chat", SURROGATE])
    | st.sampled_from(["tool", "function", "function_call", "function_call_output", "c", "{}"])
)
KEYS = st.text(max_size=3) | st.sampled_from(
    [
        *("role", "content", "type", "text", "image_url", "url", "detail", "refusal", "format"),
        *("include_usage", "tool_calls", "tool_call_id", "call_id", "id", "function", "name", "arguments"),
        "output",
    ]
)
JSONS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
BASES = st.sampled_from([{}, {"model": "chat"}, {"model": "chat", "messages": [HI], "input": "x"}])
BODIES = st.builds(
    lambda base, more: {**base, **more}, BASES, st.dictionaries(st.sampled_from(NAMES), JSONS, max_size=4)
)


@settings(max_examples=200, deadline=None)
@given(BODIES | JSONS)
async def test_any_json_is_taken_or_refused_by_a_rule(value: Any) -> None:
    try:
        asked = chat.parse(value, UNOPENED)
    except HoldfastError as error:
        status_code = error.status
    else:
        status_code = 400
        assert asked.start.chain == "chat"
        assert asked.start.input["messages"]
    assert 400 <= status_code < 500


@settings(max_examples=200, deadline=None)
@given(BODIES | JSONS)
async def test_any_json_is_a_response_or_refused_by_a_rule(value: Any) -> None:
    try:
        start, asked = await responses_asked(value)
    except HoldfastError as error:
        status_code = error.status
    else:
        status_code = 400
        assert start.input["messages"]
        assert orjson.dumps(dict(asked.kept))
    assert 400 <= status_code < 500


async def test_another_callers_response_is_none(guarded: Guarded) -> None:
    http, alice, bob = guarded.http, by_key(ALICE), by_key(BOB)
    async with python(str(http.base_url), ALICE) as client, python(str(http.base_url), BOB) as other:
        made = await client.responses.create(model="chat", input=script(["a"]))
        unknown = f"resp_{NOBODY}"
        for response_id in (made.id, unknown):
            for call in (
                other.responses.retrieve(response_id),
                other.responses.retrieve(response_id, stream=True),
                other.responses.cancel(response_id),
            ):
                with pytest.raises(NotFoundError) as caught:
                    await call
                assert caught.value.code == "not_found"
            with pytest.raises(BadRequestError) as refused:
                await other.responses.create(model="chat", input="x", previous_response_id=response_id)
            assert refused.value.code == "previous_response_not_found"
        assert (await client.responses.retrieve(made.id)).status == "completed"
        theirs, none = [await http.get(f"{RESPONSES}/{name}", headers=bob) for name in (made.id, unknown)]
        assert theirs.content == none.content
        assert (await status(http, made.id, **alice))["text"] == "a"
        async with python(str(http.base_url), "hf_nobody") as stranger:
            for attempt in (
                stranger.models.retrieve("chat"),
                stranger.responses.retrieve(made.id),
                stranger.responses.create(model="chat", input="x"),
                stranger.chat.completions.create(model="chat", messages=[{"role": "user", "content": "x"}]),
            ):
                with pytest.raises(AuthenticationError) as denied:
                    await attempt
                assert (denied.value.code, denied.value.type) == ("unauthorized", "authentication_error")
        [said] = await javascript(str(http.base_url), "retrieve", BOB, id=made.id)
        assert (said["error"]["status"], said["error"]["code"]) == (404, "not_found")


async def test_a_quotas_refusal_is_a_rate_limit(guarded: Guarded) -> None:
    http, gate = guarded.http, f"openai quota {guarded.name}"
    flood = flooding("openai", guarded.name)
    held = await asyncio.gather(*(guarded.start(flood, gate=gate) for _ in range(MOST_STREAMS)))
    async with python(str(http.base_url), flood) as client:
        for call in (
            client.responses.create(model="chat", input="x"),
            client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "x"}]),
        ):
            with pytest.raises(RateLimitError) as caught:
                await call
            assert (caught.value.code, caught.value.type) == ("over_quota", "rate_limit_error")
            assert caught.value.response.headers["retry-after"]
            assert caught.value.response.headers["x-should-retry"] == "true"
    [said] = await javascript(str(http.base_url), "wait", flood, body={"model": "chat", "input": "x"})
    assert (said["error"]["status"], said["error"]["code"]) == (429, "over_quota")
    await asyncio.gather(*(http.delete(where, headers=by_key(flood)) for where in held))


async def test_what_is_kept_of_a_response_counts_as_its_callers_bytes(guarded: Guarded) -> None:
    async with python(str(guarded.http.base_url), BOB) as client:
        made = await client.responses.create(model="chat", input="x")
        job, *_ = Log.keys(made.id.removeprefix("resp_"))
        owner: Any = await guarded.redis.hget(job, "owner")
        _, _, _, size, _ = Quota.keys(owner.decode())
        before = int(await guarded.redis.get(size) or 0)
        await client.responses.create(model="chat", input="x" * 100_000)

        async def counted() -> int:
            await client.responses.create(model="chat", input="x")
            return int(await guarded.redis.get(size) or 0)

        assert await until(counted, lambda now: now > before + 100_000)


async def test_a_caller_that_goes_away_is_not_waited_for(guarded: Guarded, model: ModelServer) -> None:
    async def readers() -> int:
        told = await guarded.http.get("/metrics", headers=by_key(METRICS_KEY))
        found = re.search(r"^holdfast_readers (\d+)", told.text, re.MULTILINE)
        return int(found[1]) if found else 0

    gate, before = f"openai gone {guarded.name}", await readers()
    body = {"model": "chat", "messages": [{"role": "user", "content": script(["a"], gate=gate)}]}
    waiting = asyncio.create_task(guarded.http.post(CHAT, json=body, headers=by_key(BOB)))
    await until(readers, lambda now: now == before + 1)
    waiting.cancel()
    await until(readers, lambda now: now == before)
    model.open_gate(gate)


async def test_a_page_of_another_origin_may_send_what_the_client_adds(guarded: Guarded) -> None:
    ours = ("arch", "lang", "os", "package-version", "retry-count", "runtime", "runtime-version", "timeout")
    added = ", ".join(["authorization", "content-type", *(f"x-stainless-{name}" for name in ours)])
    asks = {
        "access-control-request-method": "POST",
        "access-control-request-headers": added,
        "origin": ORIGIN,
    }
    for path in (CHAT, RESPONSES, f"{RESPONSES}/{NOBODY}", f"{RESPONSES}/{NOBODY}/cancel", "/v1/models"):
        answer = await guarded.http.options(path, headers=asks)
        assert answer.status_code == 204
        assert set(added.split(", ")) <= set(answer.headers["access-control-allow-headers"].split(", "))
