"""`python -m gateway webhooks`: lists what is not delivered without telling a secret, and sends it again."""

from __future__ import annotations

import argparse
import json

import pytest
from redis.asyncio import Redis

from gateway.cli.commands import parser
from gateway.cli.purge import purge
from gateway.cli.webhooks import webhooks
from gateway.settings import Settings
from gateway.store.outbox import Outbox
from gateway.streams.service import Gateway
from gateway.streams.start import Start
from gateway.webhooks.asked import Webhook

SECRET = "token-in-a-query"
START = Start("c", {"input": 1}, {}, webhook=Webhook(f"https://hooks.example.org/p?{SECRET}"))


def given(*words: str) -> argparse.Namespace:
    return parser().parse_args(["webhooks", *words])


def gateway_of(redis_url: str) -> Gateway:
    return Gateway(Settings(redis_url=redis_url, webhook_keys="k" * 32), {"c": ("c",)})


async def ended(redis_url: str, *, dead: bool, owner: str = "key:alice") -> str:
    """The name of the webhook of a stream at its end."""
    gateway = gateway_of(redis_url)
    record = await gateway.create(START, owner=owner)
    await gateway.end(record.id, owner)
    name = f"{record.id}_cancelled"
    if dead:
        assert await gateway.parts.outbox.take(name, "t", 60_000)
        assert await gateway.parts.outbox.settle(name, "t", "dead", "500") == "settled"
    await gateway.close()
    return name


async def test_what_is_not_delivered_is_listed(
    redis_url: str, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    dead, waiting = [await ended(redis_url, dead=is_dead) for is_dead in (True, False)]
    assert await webhooks(gateway_of(redis_url), given()) == 0
    printed = capsys.readouterr().out
    for name in (dead, waiting):
        assert f"msg_{name}" in printed
    assert "dead" in printed
    assert "hooks.example.org" in printed
    assert SECRET not in printed
    assert await webhooks(gateway_of(redis_url), given("list", "--json")) == 0
    told = capsys.readouterr().out
    assert SECRET not in told
    rows = {row["webhook"]: row for row in json.loads(told)["webhooks"]}
    assert (rows[f"msg_{dead}"]["state"], rows[f"msg_{dead}"]["outcome"]) == ("dead", "500")
    assert rows[f"msg_{waiting}"]["state"] == "waiting"
    assert rows[f"msg_{waiting}"]["stream"] == waiting.partition("_cancelled")[0]


async def test_dead_ones_are_sent_again_all_or_by_either_id(
    redis_url: str, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    one, by_stream, by_webhook, *others = [await ended(redis_url, dead=True) for _ in range(5)]
    assert one
    for wanted, name in (
        (by_stream.partition("_cancelled")[0], by_stream),
        (f"msg_{by_webhook}", by_webhook),
    ):
        assert await webhooks(gateway_of(redis_url), given("redrive", wanted)) == 0
        assert capsys.readouterr().out == f"msg_{name} is sent again\n"
        assert await redis.zscore(Outbox.keys(name)[1], name) is not None
        assert await redis.zscore(Outbox.keys(name)[2], name) is None
    assert await webhooks(gateway_of(redis_url), given("redrive")) == 0
    assert "3 are sent again" in capsys.readouterr().out
    for name in (one, *others):
        assert await redis.zscore(Outbox.keys(name)[1], name) is not None
    for nothing in ("x", "00" + "A" * 22, "msg_" + "00" + "A" * 22 + "_done"):
        assert await webhooks(gateway_of(redis_url), given("redrive", nothing)) == 1
        assert capsys.readouterr().err == "there is no such webhook\n"


async def test_an_owners_purge_takes_his_webhooks_and_nobody_elses(
    redis_url: str, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    hers, gone = [await ended(redis_url, dead=dead) for dead in (True, False)]
    his = await ended(redis_url, dead=True, owner="key:bob")
    await redis.delete(Outbox.keys(gone)[4])  # its log is past its retention
    index = Outbox.index("key:alice")
    assert await redis.exists(index)
    assert await purge(gateway_of(redis_url), "key:alice", asks=False) == 0
    for name in (hers, gone):
        assert not await redis.exists(Outbox.keys(name)[0])
        for names in Outbox.keys(name)[1:3]:
            assert await redis.zscore(names, name) is None
    assert not await redis.exists(index)
    assert await redis.exists(Outbox.keys(his)[0])
