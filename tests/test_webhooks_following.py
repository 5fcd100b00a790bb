"""Webhooks of streams that go on with an answer, or try a failed one again: inherited, their own, or none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway import protocol
from gateway.protocol import sse
from gateway.protocol.errors import Invalid, KeyReused, OverQuota
from gateway.store.outbox import Outbox
from gateway.streams.resume import Resume, parse_resume
from gateway.streams.retrying import Wanted, parse_retry
from gateway.streams.service import Gateway
from tests.test_webhooks_outbox import DONE, HOOK, LONG_MS, START, entry_of, gateway_of


async def waiting_and_failed(gateway: Gateway) -> tuple[str, str]:
    """A stream that asks, and one that has failed; their webhooks are for who has not seen the end."""
    log = gateway.parts.log
    start = replace(START, webhook=replace(HOOK, unseen=0.001))
    waiting, failed = [(await gateway.create(start, owner="alice")).id for _ in range(2)]
    for stream_id, status, fields in (
        (waiting, "done", {"questions": '[{"id": "q"}]', "pending": '["q"]', "thread_ms": LONG_MS}),
        (failed, "failed", {}),
    ):
        claim = (await log.claim(stream_id, protocol.new_token(), LONG_MS)).claim
        assert claim is not None
        end = sse.encode(DONE, claim.log_end, claim.tag)
        last = f"{claim.log_end}-{claim.tag}"
        told = await log.append(claim, claim.log_end, end, last, LONG_MS, status=status, fields=fields)
        assert told.word == "ok"
    return waiting, failed


OTHER = {"url": "https://other.example/", "events": ["cancelled"]}


@pytest.mark.parametrize(
    ("given", "url", "unseen"),
    [({}, HOOK.url, True), ({"webhook": OTHER}, OTHER["url"], False), ({"webhook": None}, None, False)],
)
async def test_what_goes_on_has_the_webhook_of_the_stream_before_or_one_of_its_own_or_none(
    redis_url: str, redis: Redis, given: dict[str, Any], url: str | None, unseen: bool
) -> None:
    async with gateway_of(redis_url) as gateway:
        waiting, failed = await waiting_and_failed(gateway)
        answers = {"responses": [{"interrupt_id": "q", "response": 1}], **given}
        resumed = await gateway.resume(waiting, parse_resume(answers, gateway.bounds), owner="alice")
        wanted = parse_retry(given, gateway.bounds)
        retried = await gateway.retry(failed, wanted, owner="alice", key="k")
        for record in (resumed, retried):
            assert (record.id in await gateway.parts.outbox.of_owner("alice")) is bool(url)
            await gateway.end(record.id, "alice")
            entry = await entry_of(gateway, f"{record.id}_cancelled")
            assert (entry and (entry.url, entry.owner)) == (url and (url, "alice"))
            entries = await redis.hexists(Outbox.keys(f"{record.id}_cancelled")[0], "unseen")
            assert bool(entries) is unseen
        events = {entry.event for entry in await gateway.parts.outbox.listed(100)}
        assert events == {"interrupted", "failed", *(["cancelled"] if url else [])}
        again = await gateway.resume(waiting, Resume({"q": 1}), owner="alice")
        assert again.id == resumed.id  # whatever webhook it names
        assert (await gateway.retry(failed, wanted, owner="alice", key="k")).id == retried.id
        if given:
            with pytest.raises(KeyReused):
                await gateway.retry(failed, Wanted(), owner="alice", key="k")


async def test_a_webhook_of_its_own_is_counted_before_an_answer_is_taken(redis_url: str) -> None:
    async with gateway_of(redis_url, max_owner_webhooks=2) as gateway:
        waiting, failed = await waiting_and_failed(gateway)
        answers = {"responses": [{"interrupt_id": "q", "response": 1}], "webhook": OTHER}
        for call in (
            gateway.resume(waiting, parse_resume(answers, gateway.bounds), owner="alice"),
            gateway.retry(failed, parse_retry({"webhook": OTHER}, gateway.bounds), owner="alice"),
        ):
            with pytest.raises(OverQuota):
                await call
        assert (await gateway.resume(waiting, Resume({"q": 1}), owner="alice")).resumes == waiting


@pytest.mark.parametrize("webhook", ["https://a.example/", {"url": "http://a.example/"}, [], {}])
async def test_a_webhook_that_is_none_is_named(redis_url: str, webhook: Any) -> None:
    async with gateway_of(redis_url, webhook_loopback="") as gateway:
        for parse, body in ((parse_retry, {}), (parse_resume, {"responses": []})):
            with pytest.raises(Invalid) as caught:
                parse({**body, "webhook": webhook}, gateway.bounds)
            assert caught.value.extensions["field"] == "webhook"
