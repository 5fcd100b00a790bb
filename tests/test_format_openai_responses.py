"""OpenAI's Responses on both hosts, with `openai` from PyPI and from npm."""

from __future__ import annotations

import asyncio
import functools
import json
import random
from typing import Any

import httpx
import pytest
from openai import APIStatusError, ConflictError

from tests.hosts import NOBODY, Host, until
from tests.mortals import Mortal
from tests.openai_clients import (
    BOTH,
    NOBODYS_KEY,
    Seen,
    Starting,
    follow_javascript,
    follow_python,
    go_on,
    javascript,
    python,
    seen_by,
    status,
    stream_of,
)
from tests.support.cutter import Cutter
from tests.support.everything import keys_with
from tests.support.model_server import script
from tests.support.programs import talking

pytest_plugins = ("tests.hosts", "tests.mortals")
pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = ["plain ", "a\nb", "\r\n\r\n", "data: x\n\n", "\u2028\u2029", "\0", "\U0001f600", "\ufeff", " "]
TEXT = "".join(WORDS * 3)
clients = pytest.mark.parametrize("start", BOTH.values(), ids=BOTH.keys())


def asked(said: str, model: str = "chat", **more: Any) -> dict[str, Any]:
    return {"model": model, "input": said, **more}


def url_of(host: Host) -> str:
    return str(host.http.base_url).rstrip("/")


def is_whole(seen: Seen, text: str) -> None:
    """Check that every event came once and in order, and that the text is right in each way to build it."""
    assert seen.numbers == sorted(set(seen.numbers))
    assert seen.text == seen.standing == text
    assert seen.response["status"] == "completed"


@clients
async def test_a_response_comes_in_openais_order(host: Host, start: Starting) -> None:
    seen = await start(url_of(host), asked(script(WORDS * 3), metadata={"team": "x"}))
    is_whole(seen, TEXT)
    assert seen.kinds == [
        *("created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert seen.response["metadata"] == {"team": "x"}
    assert seen.response["usage"]["total_tokens"] == 7 + len(WORDS * 3)
    assert (await status(host.http, seen.response["id"]))["text"] == TEXT


@clients
async def test_through_cuts_at_random_bytes_to_the_exact_text(host: Host, start: Starting) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    # The first event names the response. Without this event no client could reconnect.
    bounds = [rng.randrange(3000, 4500), 0, *(rng.randrange(400, 1500) for _ in range(8))]
    before = len(host.model.requests)
    async with Cutter(url_of(host), bounds) as cutter:
        seen = await start(cutter.url, asked(script(WORDS * 3, pace=0.005)))
    assert cutter.cuts >= 3
    assert seen.cuts == cutter.cuts
    is_whole(seen, TEXT)
    assert seen.events == (await follow_python(url_of(host), seen.response["id"])).events
    assert len(host.model.requests) == before + 1


async def test_it_goes_on_after_any_event(host: Host) -> None:
    async with python(url_of(host)) as client:
        made = await client.responses.create(**asked(script(["a", "b"])))
        whole = (await follow_python(url_of(host), made.id)).events
        for number, event in enumerate(whole, 1):
            rest = await client.responses.retrieve(
                made.id, stream=True, starting_after=event["sequence_number"]
            )
            assert [one.to_dict() async for one in rest] == whole[number:]
        rest = await client.responses.retrieve(made.id, stream=True, starting_after=0)
        assert [one.to_dict() async for one in rest] == whole


async def test_a_number_that_no_event_has_is_refused_and_not_asked_for_again(host: Host) -> None:
    async with python(url_of(host), retries=2) as client:
        made = await client.responses.create(**asked(script(["a"])))
        for number in (64 * 7, 2**52, 9999999999999999):
            with pytest.raises(ConflictError) as caught:
                await client.responses.retrieve(made.id, stream=True, starting_after=number)
            assert (caught.value.code, caught.value.param) == ("log_lost", "starting_after")
    path = f"/v1/responses/{made.id}"
    for query in ("starting_after=x", "starting_after=-1", "starting_after=1&starting_after=1", "stream=yes"):
        answer = await host.http.get(f"{path}?{query}&stream=true")
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid")


async def test_the_helpers_resume_by_filtering_a_replay(host: Host) -> None:
    async with python(url_of(host)) as client:
        made = await client.responses.create(**asked(script(["a", "b", "c"])))
        whole = (await follow_python(url_of(host), made.id)).events
        after = whole[4]["sequence_number"]
        async with client.responses.stream(response_id=made.id, starting_after=after) as helper:
            numbers = [event.sequence_number async for event in helper]
            assert (await helper.get_final_response()).output_text == "abc"
    assert numbers == [event["sequence_number"] for event in whole[5:]]
    said = await javascript(url_of(host), "helper", id=made.id, after=after)
    assert [line["event"]["sequence_number"] for line in said[:-1]] == numbers
    assert said[-1]["result"]["output_text"] == "abc"


async def test_in_the_background_it_is_answered_at_once_and_seen_in_every_state(host: Host) -> None:
    gate = f"openai background {host.name}"
    async with python(url_of(host)) as client:
        made = await client.responses.create(
            **asked(script(["a", "b"], gate=gate, gate_at=1), background=True)
        )
        assert (made.status in ("queued", "in_progress"), made.background) == (True, True)
        half = await until(lambda: client.responses.retrieve(made.id), lambda one: one.output_text == "a")
        assert (half.status, half.output[0].to_dict()["status"]) == ("in_progress", "in_progress")
        host.model.open_gate(gate)
        seen = await follow_python(url_of(host), made.id)
        assert (await client.responses.retrieve(made.id)).to_dict() == seen.response
        assert seen.text == "ab"
        assert seen.response["background"] is True
    [said] = await javascript(url_of(host), "retrieve", id=made.id)
    assert said["result"] == {**seen.response, "output_text": "ab"}


async def test_without_stream_or_background_its_end_is_waited_for(host: Host) -> None:
    async with python(url_of(host)) as client:
        answer = await client.responses.with_raw_response.create(**asked(script(["a", "b"])))
        made = answer.parse()
        assert (made.status, made.output_text) == ("completed", "ab")
        assert answer.headers["location"] == stream_of(made.id)
        assert answer.headers["x-stream-id"] == made.id.removeprefix("resp_")
        failed = await client.responses.create(**asked(script([], status=400)))
        assert failed.status == "failed"
    [said] = await javascript(url_of(host), "wait", body=asked(script(["a", "b"])))
    assert said["result"]["output_text"] == "ab"


async def test_cancelling_ends_it_for_its_readers_too(host: Host) -> None:
    gate = f"openai cancel {host.name}"
    async with python(url_of(host)) as client:
        made = await client.responses.create(
            **asked(script(["a", "b"], gate=gate, gate_at=1), background=True)
        )
        readings = [
            asyncio.create_task(follow(url_of(host), made.id))
            for follow in (follow_python, follow_javascript)
        ]
        await until(lambda: client.responses.retrieve(made.id), lambda one: one.output_text == "a")
        for _ in range(2):
            assert (await client.responses.cancel(made.id)).status == "cancelled"
    [said] = await javascript(url_of(host), "cancel", id=made.id)
    assert said["result"]["status"] == "cancelled"
    for seen in await asyncio.gather(*readings):
        assert seen.kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
        assert (seen.response["status"], seen.text) == ("cancelled", "a")
    host.model.open_gate(gate)


@clients
async def test_a_failure_is_a_failed_response(host: Host, start: Starting) -> None:
    seen = await start(url_of(host), asked(script([], status=400)))
    assert seen.kinds[-1] == "failed"
    assert seen.response["error"]["code"] == "model_invalid_request"
    assert "scripted" not in json.dumps(seen.response)


async def test_a_chain_of_several_stages_has_its_last_ones_text_as_its_answer(host: Host) -> None:
    called, written = [
        [await start(url_of(host), asked(said, model)) for start in BOTH.values()]
        for model, said in (("agent", script(turns=TURNS)), ("report", "x"))
    ]
    for one, other in (called, written):
        assert one.text == other.text == (await status(host.http, one.response["id"]))["text"]
        is_whole(one, one.text)
    assert called[0].text == "It is 42."
    call = called[0].response["output"][0]
    assert (call["type"], call["name"], call["output"]) == ("mcp_call", "calculator", "42")
    kinds = [item["type"] for item in written[0].response["output"]]
    assert kinds == ["reasoning"] * (len(kinds) - 1) + ["message"]
    assert len(kinds) > 3


TURNS = [
    {"tool_calls": [{"name": "calculator", "pieces": ['{"expression": ', '"6*7"}']}]},
    {"chunks": ["It is ", "42."]},
]


async def test_a_conversation_goes_on_without_the_instructions_before(host: Host) -> None:
    async with python(url_of(host)) as client:
        first = await client.responses.create(
            model="mirror", input="one", instructions="Be short.", temperature=0.5
        )
        given, params = json.loads(first.output_text)
        assert given == [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "one"},
        ]
        assert params["temperature"] == 0.5
        second = await client.responses.create(
            model="mirror", input="two", previous_response_id=first.id, instructions="Be long."
        )
        assert second.previous_response_id == first.id
        assert second.instructions == "Be long."
        assert second.metadata == {}
        assert json.loads(second.output_text)[0] == [
            {"role": "system", "content": "Be long."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "two"},
        ]
        third: Any = [*(item.to_dict() for item in first.output), {"role": "user", "content": "three"}]
        again = await client.responses.create(model="mirror", input=third)
        assert [one["content"] for one in json.loads(again.output_text)[0]] == [first.output_text, "three"]


async def said_in_the_store(host: Host, words: str) -> set[str]:
    """Return the kinds of keys whose values contain these words."""
    return {key.split(":")[1] for key in await keys_with(host.redis, words)}


@pytest.mark.parametrize("background", [False, True], ids=["awaited", "background"])
async def test_fault_82_of_what_is_not_to_be_stored_nothing_outlives_the_run(
    host: Host, background: bool
) -> None:
    canary = f"canary-{host.name}-{background}"
    asked_for: dict[str, Any] = {"model": "figures", "background": background}
    async with python(url_of(host)) as client:
        for store, kept in ((True, {"conversation"}), (False, set())):
            told, asks = f"{canary}-{store}-told", f"{canary}-{store}-asks"
            made = await client.responses.create(input=asks, instructions=told, store=store, **asked_for)
            assert made.instructions == told  # The request's own answer shows it.

            async def standing(made: Any = made) -> Any:
                return await client.responses.retrieve(made.id)

            ended = await until(standing, lambda response: response.status == "completed")
            assert ended.instructions == (told if store else None)
            assert ended.to_dict()["store"] is store
            assert await said_in_the_store(host, told) == kept
            assert await said_in_the_store(host, asks) == kept


async def test_what_a_conversation_cannot_go_on_from_is_refused(host: Host) -> None:
    gate = f"openai previous {host.name}"
    live = await host.start(["a"], gate=gate)
    other = (await host.http.post("/stream", json={"chain": "mirror", "input": 1})).headers["location"]
    await host.read(other)
    async with python(url_of(host)) as client:
        unstored = await client.responses.create(model="mirror", input="x", store=False)
        assert unstored.to_dict()["store"] is False
        for previous, code in (
            (live, 422),
            (other, 422),
            (stream_of(unstored.id), 400),
            (f"/stream/{NOBODY}", 400),
        ):
            with pytest.raises(APIStatusError) as caught:
                await client.responses.create(
                    model="mirror", input="x", previous_response_id=previous.replace("/stream/", "resp_")
                )
            assert (caught.value.status_code, caught.value.param) == (code, "previous_response_id")
        host.model.open_gate(gate)
        long: str = (await client.responses.create(model="mirror", input="x" * 140_000)).id
        with pytest.raises(APIStatusError) as caught:
            await client.responses.create(model="mirror", input="x", previous_response_id=long)
        assert (caught.value.status_code, caught.value.code) == (413, "too_large")


async def test_a_post_that_the_client_repeats_starts_one_run_if_it_has_a_key(host: Host) -> None:
    before = len(host.model.requests)
    keys = {"Idempotency-Key": f"openai {host.name}"}
    async with Cutter(url_of(host), [0]) as cutter, python(cutter.url, retries=2) as client:
        made = await client.responses.create(**asked(script(["once"])), extra_headers=keys)
    assert (cutter.cuts, made.output_text) == (1, "once")
    async with Cutter(url_of(host), [0]) as cutter:
        said = await javascript(cutter.url, "create", body=asked(script(["once"])), headers=keys, retries=2)
    assert (cutter.cuts, seen_by(said).response["id"]) == (1, made.id)
    assert len(host.model.requests) == before + 1


async def test_of_its_own_the_client_has_no_key(host: Host) -> None:
    """A POST whose answer is lost therefore starts another run, as at OpenAI.

    `docs/formats.md` describes the remedy.
    """
    sent: list[httpx.Headers] = []
    async with python(url_of(host)) as client:
        answer = await client.responses.with_raw_response.create(**asked(script(["a"])))
        sent.append(httpx.Headers(dict(answer.http_request.headers)))
    assert "idempotency-key" not in sent[0]


async def test_a_killed_workers_text_goes_on_or_is_replaced(mortal: Mortal) -> None:
    gate = f"openai kill {mortal.name}"
    said = [script(["a", "b", "c", "d"], gate=gate, gate_at=2, **more) for more in ({}, {"again": AGAIN})]
    async with python(mortal.url) as client:
        made = [(await client.responses.create(**asked(one, background=True))).id for one in said]
        readings = [
            asyncio.create_task(follow(mortal.url, response_id))
            for response_id in made
            for follow in (follow_python, follow_javascript)
        ]
        async with mortal.worker() as first:
            for response_id in made:
                await until(
                    functools.partial(client.responses.retrieve, response_id),
                    lambda one: one.output_text == "ab",
                )
            await first.kill()
        mortal.model.open_gate(gate)
        async with mortal.worker():
            same, same_too, other, other_too = await asyncio.gather(*readings)
        assert (same.events, other.events) == (same_too.events, other_too.events)
        is_whole(same, "abcd")
        is_whole(other, "other words")
        assert ended(same) == [(0, "completed")]
        assert ended(other) == [(0, "incomplete"), (1, "completed")]
        assert {one.kinds.count("in_progress") for one in (same, other)} == {1}
        async with client.responses.stream(response_id=made[1]) as helper:
            assert (await helper.get_final_response()).output_text == "other words"


AGAIN = ["other ", "words"]


def ended(seen: Seen) -> list[tuple[int, str]]:
    """Return the index of each finished item and its final status."""
    done = [event for event in seen.events if event["type"] == "response.output_item.done"]
    return [(event["output_index"], event["item"]["status"]) for event in done]


async def test_it_survives_the_servers_rotation(mortal: Mortal) -> None:
    gate, seen = f"openai rotation {mortal.name}", Seen()
    async with python(mortal.rotating_url) as client, mortal.worker():
        made = await client.responses.create(
            **asked(script(["a", "b"], gate=gate, gate_at=1), background=True)
        )
        call = json.dumps({"follow": {"id": made.id}})
        async with talking("openai.mjs", mortal.rotating_url, NOBODYS_KEY, call) as talk:
            reading = asyncio.create_task(go_on(client, seen, response_id=made.id))
            await talk.until(lambda lines: sum("cut" in line for line in lines) > 1)
            with pytest.raises(APIStatusError) as caught:
                await _waited(mortal)
            assert (caught.value.status_code, caught.value.code) == (504, "unfinished")
            assert caught.value.response.headers["x-should-retry"] == "false"
            mortal.model.open_gate(gate)
            await reading
            other = seen_by(await talk.end())
    assert seen.cuts > 1
    assert seen.events == other.events
    is_whole(seen, "ab")


async def _waited(mortal: Mortal) -> None:
    """Wait for the end where no connection lasts long enough. The client does not repeat this request."""
    gate = f"openai waits {mortal.name}"
    async with python(mortal.rotating_url, retries=2) as client:
        try:
            await client.responses.create(**asked(script(["a"], gate=gate)))
        finally:
            mortal.model.open_gate(gate)
