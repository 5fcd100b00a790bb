"""Webhooks without the store: URLs, addresses, signatures, and the sending of one over real sockets."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Standard
from standardwebhooks.webhooks import WebhookVerificationError

from gateway.protocol.errors import Invalid
from gateway.webhooks.addresses import Address, is_public
from gateway.webhooks.asked import EVENTS, Webhook, of_url, parse
from gateway.webhooks.resolving import resolve
from gateway.webhooks.sender import LONGEST_HEAD, Poster
from gateway.webhooks.signature import Secrets
from gateway.webhooks.urls import Rules, host_of
from tests.support.certificates import certify
from tests.support.receiver import OK, Receiver, answer

RULES = Rules(is_on=True)
NEAR = replace(RULES, loopback=True)
HEADERS = {"webhook-id": "msg_1"}
KEYS = ["new" * 16, "old" * 16]


@pytest.mark.parametrize(
    ("url", "host", "port", "target"),
    [
        ("https://example.org", "example.org", 443, "/"),
        ("https://Example.ORG:8443/a/b?c=d@e", "example.org", 8443, "/a/b?c=d@e"),
        ("HTTPS://example.org?x", "example.org", 443, "/?x"),
        ("https://8.8.8.8/", "8.8.8.8", 443, "/"),
        ("https://[2606:4700:4700::1111]:1/", "2606:4700:4700::1111", 1, "/"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, "/"),
        ("https://internal/", "internal", 443, "/"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, target: str) -> None:
    place = RULES.place(url)
    assert (place.secure, place.host, place.port, place.target) == (True, host, port, target)
    assert host_of(url) == host


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "/hook",
        "//example.org/",
        "ftp://example.org/",
        "http://example.org/",
        "https://",
        "https:///x",
        "https://user@example.org/",
        "https://user:pw@example.org/",
        "https://example.org:443@10.0.0.1/",
        "https://example.org\\@10.0.0.1/",
        "https://example.org/\\x",
        "https://example.org/#f",
        "https://example.org#@10.0.0.1/",
        "https://example.org:0/",
        "https://example.org:65536/",
        "https://example.org:/",
        "https://example.org./",
        "https://-example.org/",
        "https://exa mple.org/",
        "https://example.org/a b",
        "https://example.org/\r\nx: y",
        "https://bücher.example/",
        "https://%31%30.0.0.1/",
        "https://\uff11\uff10.0.0.1/",
        "https://localhost/",
        "https://LOCALHOST:8080/",
        "https://a.localhost/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://127.0.0.1./",
        "https://10.1.2.3/",
        "https://172.16.0.1/",
        "https://192.168.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://168.63.129.16/",
        "https://100.100.100.200/",
        "https://192.0.0.192/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://[::]/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[::127.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://[64:ff9b:1::1]/",
        "https://[2002:7f00:1::]/",
        "https://[2001:0:1::1]/",
        "https://[fe80::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[fd00:ec2::254]/",
        "https://[ff02::1]/",
        "https://[1:2]/",
        "https://" + "a" * 64 + ".org/",
        "https://example.org/" + "a" * 2048,
    ],
)
def test_a_url_that_is_odd_or_not_public_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        RULES.place(url)
    with pytest.raises(Invalid) as refused:
        of_url(url, RULES)
    assert refused.value.extensions["field"] == "webhook"
    if len(url) > len("https://"):
        assert url not in refused.value.detail


def test_an_operator_names_hosts_and_lets_his_own_machine_be_asked() -> None:
    named = replace(RULES, hosts=frozenset({"hooks.example.org"}))
    assert named.place("https://HOOKS.example.org:99/").port == 99
    for other in ("https://example.org/", "https://a.hooks.example.org/", "https://8.8.8.8/"):
        with pytest.raises(ValueError, match="GATEWAY_WEBHOOK_HOSTS"):
            named.place(other)
    for near in ("http://127.0.0.1:1/", "http://localhost/", "https://127.0.0.1/", "http://[::1]/"):
        assert NEAR.place(near).host in ("127.0.0.1", "localhost", "::1")
    for far in ("http://example.org/", "http://8.8.8.8/", "https://10.0.0.1/", "http://[::ffff:127.0.0.1]/"):
        with pytest.raises(ValueError, match="must"):
            NEAR.place(far)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("1.1.1.1", True),
        ("172.15.0.1", True),
        ("172.32.0.1", True),
        ("2606:4700::1", True),
        ("64:ff9b::808:808", True),
        ("64:ff9b::7f00:1", False),
        ("::ffff:8.8.8.8", False),
        ("198.18.0.1", False),
        ("203.0.113.9", False),
        ("240.0.0.1", False),
        ("2001:db8::1", False),
        ("fec0::1", False),
        ("fe80::1%eth0", False),
        ("2606:4700::1%eth0", False),
    ],
)
def test_an_address_is_judged_as_what_it_is(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


def test_a_webhook_is_read_with_its_rules() -> None:
    url = "https://example.org/"
    assert parse({"url": url}, RULES) == Webhook(url)
    assert parse({"url": url, "events": ["failed"]}, RULES).events == ("failed",)
    assert parse({"url": url, "when": "unseen"}, RULES).unseen == 30
    assert parse({"url": url, "when": "unseen", "within_seconds": 2.5}, RULES).unseen == 2.5
    assert Webhook(url).events == EVENTS


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("https://example.org/", "webhook"),
        (None, "webhook"),
        ({}, "webhook"),
        ({"url": 1}, "webhook"),
        ({"url": "https://example.org/", "secret": "x"}, "webhook"),
        ({"url": "https://example.org/", "events": []}, "webhook.events"),
        ({"url": "https://example.org/", "events": "done"}, "webhook.events"),
        ({"url": "https://example.org/", "events": ["done", "done"]}, "webhook.events"),
        ({"url": "https://example.org/", "events": ["began"]}, "webhook.events"),
        ({"url": "https://example.org/", "events": [[]]}, "webhook.events"),
        ({"url": "https://example.org/", "when": "seen"}, "webhook.when"),
        ({"url": "https://example.org/", "within_seconds": 1}, "webhook.within_seconds"),
        ({"url": "https://example.org/", "when": "unseen", "within_seconds": 0}, "webhook.within_seconds"),
        ({"url": "https://example.org/", "when": "unseen", "within_seconds": True}, "webhook.within_seconds"),
        ({"url": "https://example.org/", "when": "unseen", "within_seconds": 1e9}, "webhook.within_seconds"),
    ],
)
def test_a_wrong_webhook_is_named(value: Any, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(value, RULES)
    assert refused.value.extensions["field"] == field
    with pytest.raises(Invalid):
        parse(value, Rules())


def test_each_owner_has_a_secret_of_his_own_and_keys_are_rotated() -> None:
    now, body = int(time.time()), b'{"type":"stream.done"}'
    secrets = Secrets(KEYS)
    alice, bob = secrets.told("key:alice"), secrets.told("key:bob")
    assert alice != bob
    headers = secrets.headers("key:alice", "msg_1", now, body)
    assert Standard(alice).verify(body, headers) == {"type": "stream.done"}
    assert Standard(Secrets(KEYS[1:]).told("key:alice")).verify(body, headers)  # who has the old one
    for wrong, sent in ((bob, body), (alice, body + b" "), (Secrets(["x" * 32]).told("key:alice"), body)):
        with pytest.raises(WebhookVerificationError):
            Standard(wrong).verify(sent, headers)


def resolving(*rounds: Sequence[str]) -> tuple[list[str], Any]:
    """A name server that answers these addresses, one list after the other; and what it was asked."""
    asked: list[str] = []
    left = list(rounds)

    async def look(name: str, port: int) -> list[Address]:
        asked.append(name)
        return [ip_address(one) for one in (left.pop(0) if len(left) > 1 else left[0])]

    return asked, look


async def test_what_is_sent_comes_to_the_address_that_was_checked() -> None:
    async with Receiver() as receiver:
        asked, look = resolving(["127.0.0.1"])
        sender = Poster(NEAR, resolving=look)
        url = f"http://some.localhost:{receiver.port}/a?b=c"
        assert await sender.send(url, HEADERS, b"{}") == "204"
        [one] = receiver.received
        assert (one.target, one.body, one.id) == ("/a?b=c", b"{}", "msg_1")
        assert one.headers["host"] == f"some.localhost:{receiver.port}"
        assert one.headers["content-type"] == "application/json"
        assert asked == ["some.localhost"]


async def test_tls_asks_for_the_name_and_not_for_the_address(tmp_path: Path) -> None:
    trusting = ssl.create_default_context(cafile=certify(tmp_path, "localhost"))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    _, look = resolving(["127.0.0.1"])
    async with Receiver(tls=served) as receiver:
        sender = Poster(NEAR, resolving=look, tls=trusting)
        assert await sender.send(f"https://localhost:{receiver.port}/", HEADERS, b"{}") == "204"
        assert await sender.send(f"https://other.localhost:{receiver.port}/", HEADERS, b"{}") == "tls"
        assert (
            await Poster(NEAR, resolving=look).send(f"https://localhost:{receiver.port}/", HEADERS, b"{}")
            == "tls"
        )
        assert len(receiver.received) == 1


async def test_a_name_that_becomes_private_is_asked_no_more() -> None:
    async with Receiver() as receiver:
        url = f"http://hooks.localhost:{receiver.port}/"
        for number, address in enumerate(("10.0.0.1", "169.254.169.254", "::ffff:7f00:1", "8.8.8.8"), 1):
            asked, look = resolving(["127.0.0.1"], [address], ["127.0.0.1", address])
            sender = Poster(NEAR, resolving=look)
            assert await sender.send(url, HEADERS, b"{}") == "204"
            for _ in range(2):
                assert await sender.send(url, HEADERS, b"{}") == "refused"
            assert (len(asked), receiver.connections) == (3, number)


async def test_a_public_name_leads_to_no_private_address() -> None:
    async with Receiver() as receiver:
        url = f"https://hooks.example:{receiver.port}/"
        for addresses in (["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["::ffff:7f00:1"], ["::1"]):
            sender = Poster(RULES, resolving=resolving(addresses)[1])
            assert await sender.send(url, HEADERS, b"{}") == "refused"
            mixed = Poster(RULES, resolving=resolving(["8.8.8.8", *addresses])[1])
            assert await mixed.send(url, HEADERS, b"{}") == "refused"  # none is asked, not the first either
        assert receiver.connections == 0


async def test_loopback_is_asked_by_http_only_where_the_name_leads_there() -> None:
    async with Receiver() as receiver:
        _, look = resolving(["8.8.8.8"])
        sender = Poster(NEAR, resolving=look)
        assert await sender.send(f"http://a.localhost:{receiver.port}/", HEADERS, b"{}") == "refused"
        hosts = replace(NEAR, hosts=frozenset({"other.example"}))
        assert await Poster(hosts).send(receiver.url(), HEADERS, b"{}") == "refused"
        assert receiver.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with Receiver() as other, Receiver([answer(status, f"location: {other.url()}")]) as receiver:
        assert await Poster(NEAR).send(receiver.url(), HEADERS, b"{}") == str(status)
        assert other.connections == 0


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        (OK, "204"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "200"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nthe beginning", "200"),
        (b"HTTP/1.0 500\r\n\r\n", "500"),
        (b"HTTP/1.1 200 OK\r\n", "200"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "no_answer"),
        (b"", "no_answer"),
        (b"220 mail.example ESMTP\r\n\r\n", "no_answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * LONGEST_HEAD, "200"),
        (b"x" * 2 * LONGEST_HEAD, "no_answer"),
    ],
)
async def test_of_the_answer_the_status_counts(told: bytes, outcome: str) -> None:
    async with Receiver([told]) as receiver:
        assert await Poster(NEAR).send(receiver.url(), HEADERS, b"{}") == outcome


async def test_a_slow_one_is_left_in_time_whatever_it_is_slow_at() -> None:
    async def never(name: str, port: int) -> list[Address]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async with Receiver([None]) as receiver:
        began = time.monotonic()
        assert await Poster(NEAR, timeout=0.2).send(receiver.url(), HEADERS, b"{}") == "timeout"
        slow = Poster(NEAR, timeout=0.2, resolving=never)
        assert await slow.send("http://a.localhost/", HEADERS, b"{}") == "timeout"
        assert time.monotonic() - began < 5
    assert await Poster(NEAR).send(receiver.url(), HEADERS, b"{}") == "no_connection"


async def test_names_are_looked_up_and_a_name_that_is_none_is_told() -> None:
    assert ip_address("127.0.0.1") in await resolve("localhost", 80)
    with pytest.raises(OSError, match="gaierror"):
        await resolve("no-such-name.invalid", 80)
    assert await Poster(RULES).send("https://no-such-name.invalid/", HEADERS, b"{}") == "no_address"
