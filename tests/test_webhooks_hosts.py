"""Webhooks on both hosts, with two owners: who is told what, when, and how often."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest
import pytest_asyncio
from standardwebhooks.webhooks import WebhookVerificationError

from gateway.store.outbox import Outbox
from gateway.webhooks.asked import EVENTS
from tests.callers import ALICE, BOB, CANARY, Guarded, by_key
from tests.hosts import EVENTS as STREAMED
from tests.hosts import JSON, Wire, until
from tests.support.everything import keys_with
from tests.support.model_server import ModelServer, script
from tests.support.receiver import Receiver, answer

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as started:
        yield started


async def post(guarded: Guarded, webhook: Any, who: str = ALICE, **body: Any) -> httpx.Response:
    asked = {"user": script(["a", "b"]), "webhook": webhook, **body}
    return await guarded.http.post("/stream", json=asked, headers=by_key(who))


async def started(guarded: Guarded, webhook: Any, who: str = ALICE, **body: Any) -> str:
    """Its id."""
    made = await post(guarded, webhook, who, **body)
    assert made.status_code == 202, made.text
    stream_id: str = made.json()["id"]
    return stream_id


async def secret(guarded: Guarded, who: str = ALICE) -> str:
    told = await guarded.http.get("/webhooks/secret", headers=by_key(who))
    assert (told.status_code, told.headers["cache-control"]) == (200, "no-store")
    value: str = told.json()["secret"]
    return value


async def left(guarded: Guarded, stream_id: str) -> list[str]:
    """Keys of the stream's webhooks."""
    names = [Outbox.keys(f"{stream_id}_{event}")[0] for event in EVENTS]
    return [name for name in names if await guarded.redis.exists(name)]


async def test_its_owner_is_told_of_a_streams_end_once(guarded: Guarded, receiver: Receiver) -> None:
    webhook = {"url": receiver.url("/a?s=canary")}
    stream_id = await started(guarded, webhook, metadata={"about": "x"})
    await receiver.until(lambda: receiver.received)
    [one] = receiver.received
    told = one.verified(await secret(guarded))
    document = (await guarded.http.get(f"/stream/{stream_id}", headers={**JSON, **by_key(ALICE)})).json()
    assert (told["type"], told["data"]) == ("stream.done", document)
    assert (told["timestamp"], document["text"], document["metadata"]) == (
        document["ended_at"],
        "ab",
        {"about": "x"},
    )
    assert one.id.startswith("msg_")
    assert "." not in one.id
    assert await secret(guarded, BOB) != await secret(guarded)
    with pytest.raises(WebhookVerificationError):
        one.verified(await secret(guarded, BOB))
    await until(lambda: left(guarded, stream_id), lambda names: not names)
    other = await started(guarded, webhook, BOB)
    await receiver.until(lambda: len(receiver.received) == 2)
    assert receiver.received[1].verified(await secret(guarded, BOB))["data"]["id"] == other
    log = guarded.log()
    assert "s=canary" not in log
    assert CANARY + "-of-webhooks" not in log


async def test_of_each_end_only_who_has_asked_for_it_is_told(
    guarded: Guarded, receiver: Receiver, model: ModelServer
) -> None:
    gate = f"webhook {guarded.name}"
    for events, body in (
        (["failed"], {"user": script(["x"], status=400)}),
        (["cancelled"], {"user": script(["x", "y"], gate=gate, gate_at=1)}),
    ):
        stream_id = await started(guarded, {"url": receiver.url(f"/{events[0]}"), "events": events}, **body)
        await started(guarded, {"url": receiver.url("/none"), "events": ["interrupted"]}, **body)
        if events == ["cancelled"]:
            await guarded.http.delete(f"/stream/{stream_id}", headers=by_key(ALICE))
        path = f"/{events[0]}"
        await receiver.until(partial(receiver.of, path))
        [one] = receiver.of(path)
        assert one.document["type"] == f"stream.{events[0]}"
        assert one.document["data"]["id"] == stream_id
        assert one.document["data"]["status"] == events[0]
    model.open_gate(gate)
    assert not receiver.of("/none")


async def test_each_try_sends_the_same_and_then_it_is_given_up_and_sent_again(
    guarded: Guarded, receiver: Receiver
) -> None:
    receiver.answers += [answer(500), answer(302, f"location: {receiver.url('/elsewhere')}"), answer(404)]
    stream_id = await started(guarded, {"url": receiver.url()})
    await receiver.until(lambda: len(receiver.received) == 3)
    await until(
        lambda: guarded.redis.zscore(Outbox.keys(stream_id + "_done")[2], f"{stream_id}_done"),
        lambda score: score is not None,
    )
    assert len({(one.id, one.body) for one in receiver.received}) == 1
    assert not receiver.of("/elsewhere")
    for one in receiver.received:
        one.verified(await secret(guarded))
    assert await left(guarded, stream_id)


async def test_a_slow_receiver_and_a_closed_port_hold_up_nobody(guarded: Guarded, receiver: Receiver) -> None:
    receiver.answers.append(None)
    await started(guarded, {"url": receiver.url("/slow")})
    await receiver.until(lambda: receiver.received)
    nobody = await started(guarded, {"url": "http://127.0.0.1:1/"}, BOB)
    stream_id = await started(guarded, {"url": receiver.url("/quick")}, BOB)
    answered = await guarded.http.get(f"/stream/{stream_id}", headers={**STREAMED, **by_key(BOB)})
    assert Wire(answered.content).events[-1] == "done"
    await receiver.until(lambda: receiver.of("/quick"))
    await receiver.until(lambda: len(receiver.of("/slow")) == 2)  # after 5 s, and a pause
    assert len({(one.id, one.body) for one in receiver.of("/slow")}) == 1
    assert (await guarded.http.delete(f"/stream/{nobody}?purge=true", headers=by_key(BOB))).status_code == 204


async def test_unseen_ones_alone_are_told_of(guarded: Guarded, receiver: Receiver) -> None:
    def hook(name: str) -> dict[str, Any]:
        return {"url": receiver.url(f"/{name}"), "when": "unseen", "within_seconds": 2}

    seen = await started(guarded, hook("seen"))
    by_token = await started(guarded, hook("token"))
    joint = await started(guarded, hook("joint"))
    unseen = await started(guarded, hook("unseen"))
    token = (await guarded.token(f"/stream/{by_token}", ALICE))["stream"]
    for place, headers in (
        (f"/stream/{seen}", by_key(ALICE)),
        (token, {}),
        (f"/streams/events?id={joint}", by_key(ALICE)),
    ):
        assert b"done" in (await guarded.http.get(place, headers={**STREAMED, **headers})).content
    await until(
        lambda: guarded.http.get(f"/stream/{unseen}", headers={**JSON, **by_key(ALICE)}),
        lambda told: told.json()["status"] == "done",
    )
    await receiver.until(lambda: receiver.of("/unseen"))
    for one in (seen, by_token, joint):
        assert await left(guarded, one) == []
    assert {one.target for one in receiver.received} == {"/unseen"}


@pytest.mark.parametrize(
    ("webhook", "field"),
    [
        ({"url": "https://10.0.0.1/"}, "webhook"),
        ({"url": "https://169.254.169.254/latest"}, "webhook"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "webhook"),
        ({"url": "https://user:pw@example.org/"}, "webhook"),
        ({"url": "http://example.org/"}, "webhook"),
        ("https://example.org/", "webhook"),
        ({"url": "https://example.org/", "events": ["x"]}, "webhook.events"),
    ],
)
async def test_a_webhook_that_is_refused_starts_nothing(guarded: Guarded, webhook: Any, field: str) -> None:
    mark = uuid.uuid4().hex
    refused = await post(guarded, webhook, metadata={"about": mark})
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (422, "invalid", field)
    asked = {"assistant_id": "chat", "input": {"messages": []}, "webhook": "https://10.0.0.1/"}
    run = await guarded.http.post("/threads/t/runs", json=asked, headers=by_key(ALICE))
    assert run.status_code == 422
    assert "webhook" in run.text
    assert not await keys_with(guarded.redis, mark)


async def test_the_same_key_with_another_webhook_is_another_body(
    guarded: Guarded, receiver: Receiver
) -> None:
    key = {"idempotency-key": uuid.uuid4().hex, **by_key(ALICE)}
    asked: dict[str, Any] = {"user": script(["a"]), "webhook": {"url": receiver.url()}}
    first, again = [await guarded.http.post("/stream", json=asked, headers=key) for _ in range(2)]
    assert first.json()["id"] == again.json()["id"]
    other = await guarded.http.post(
        "/stream", json={**asked, "webhook": {"url": receiver.url("/2")}}, headers=key
    )
    assert other.status_code == 422
    await receiver.until(lambda: receiver.received)


async def test_a_langgraph_run_and_a_producers_stream_have_webhooks_too(
    guarded: Guarded, receiver: Receiver
) -> None:
    asked = {
        "assistant_id": "chat",
        "input": {"messages": [{"role": "user", "content": script(["a"])}]},
        "webhook": receiver.url("/run"),
    }
    thread = str(uuid.uuid4())
    made = await guarded.http.post(f"/threads/{thread}/runs", json=asked, headers=by_key(ALICE))
    assert made.status_code == 200, made.text
    await receiver.until(lambda: receiver.of("/run"))
    told = receiver.of("/run")[0].verified(await secret(guarded))
    assert (told["type"], told["data"]["id"]) == ("stream.done", made.json()["run_id"])
    opened = await guarded.http.post(
        "/stream",
        json={"producer": True, "chain": "own", "webhook": {"url": receiver.url("/own")}},
        headers=by_key(ALICE),
    )
    assert opened.status_code == 201, opened.text
    said = (
        {"type": "stage", "name": "own", "state": "started"},
        {"type": "failed", "code": "x", "message": "y", "retryable": False},
    )
    lines = "\n".join(map(json.dumps, said))
    await guarded.http.post(
        f"/stream/{opened.json()['id']}/events?position=0",
        content=lines,
        headers={"content-type": "application/x-ndjson", "x-write-token": opened.json()["write_token"]},
    )
    await receiver.until(lambda: receiver.of("/own"))
    assert receiver.of("/own")[0].document["type"] == "stream.failed"


async def test_a_retry_may_have_a_webhook_of_its_own(guarded: Guarded, receiver: Receiver) -> None:
    failing = {"user": script(["a"], status=400)}
    failed = await started(guarded, {"url": receiver.url("/first")}, **failing)
    await receiver.until(lambda: receiver.of("/first"))
    path = f"/stream/{failed}/retry"
    own = {"webhook": {"url": receiver.url("/own"), "events": ["failed"]}}
    theirs = await guarded.http.post(path, json=own, headers=by_key(BOB))
    assert theirs.status_code == 404
    refused = await guarded.http.post(
        path, json={"webhook": {"url": "https://10.0.0.1/"}}, headers=by_key(ALICE)
    )
    assert (refused.status_code, refused.json()["field"]) == (422, "webhook")
    none = await guarded.http.post(path, json={"webhook": None}, headers=by_key(ALICE))
    made = await guarded.http.post(path, json=own, headers=by_key(ALICE))
    same = await guarded.http.post(path, headers=by_key(ALICE))
    assert {answer.status_code for answer in (none, made, same)} == {202}
    await receiver.until(lambda: receiver.of("/own") and len(receiver.of("/first")) == 2)
    assert receiver.of("/own")[0].document["data"]["id"] == made.json()["id"]
    assert receiver.of("/first")[1].document["data"]["id"] == same.json()["id"]
    assert not await left(guarded, none.json()["id"])


async def test_a_purge_leaves_nothing_of_what_was_to_be_sent(guarded: Guarded, receiver: Receiver) -> None:
    receiver.answers += [answer(500)] * 3
    words = f"purged{uuid.uuid4().hex}"
    target = f"/{words}?secret"
    stream_id = await started(guarded, {"url": receiver.url(target)}, user=script([words]))
    await receiver.until(lambda: receiver.received)
    assert (
        await guarded.http.delete(f"/stream/{stream_id}?purge=true", headers=by_key(ALICE))
    ).status_code == 204
    await until(lambda: keys_with(guarded.redis, words), lambda keys: not keys)
    found = await keys_with(guarded.redis, stream_id)
    assert {key.rpartition(":")[2] for key in found} <= {"starts"}


async def test_who_is_not_known_is_told_no_secret(guarded: Guarded) -> None:
    assert (await guarded.http.get("/webhooks/secret")).status_code == 401
