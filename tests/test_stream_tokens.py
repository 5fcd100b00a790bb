"""Tokens for one stream, on both hosts: good for reading it until they expire, and for nothing else.

Fault 23: a token that is not good is answered alike, whether or not there is the stream.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime

import pytest
import pytest_asyncio

from gateway.settings import Settings
from gateway.streams.service import Gateway
from gateway.streams.stream_tokens import MARGIN_SECONDS, StreamTokens
from tests.callers import ALICE, BOB, TOKEN_KEYS, TOKEN_SECONDS, Guarded, by_key, old_tokens
from tests.hosts import EVENTS, JSON, NOBODY, Host, Wire, triples, until, uvicorn_host, within
from tests.support.model_server import ModelServer, script
from tests.support.programs import talking
from tests.support.redis_server import RedisServer
from tests.test_wire_clients import event_source

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def flipped(token: str) -> list[str]:
    """This token, with one character changed: each in turn."""
    forged = []
    for at, letter in enumerate(token):
        pool = "0123456789" if letter.isdigit() and at < token.index(".") else ALPHABET
        other = "-" if letter == "." else pool[(pool.index(letter) + 1) % len(pool)]
        forged.append(token[:at] + other + token[at + 1 :])
    return forged


async def refused(guarded: Guarded, where: str, query: str) -> None:
    """The same 401 for this stream, for one that is not, and for what cannot be one."""
    for accept in (EVENTS, JSON):
        paths = (where, f"/stream/{NOBODY}", "/stream/x")
        answers = await asyncio.gather(
            *(guarded.http.get(f"{path}?{query}", headers=accept) for path in paths)
        )
        assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}
        assert answers[0].json()["code"] == "unauthorized"
        assert answers[0].headers["www-authenticate"] == "Bearer"


async def test_a_token_reads_events_and_the_document(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    given = await guarded.token(where, ALICE)
    assert given["stream"] == f"{where}?token={given['token']}"
    assert set(given) == {"token", "expires_at", "stream"}
    life = datetime.fromisoformat(given["expires_at"]).timestamp() - await guarded.now_ms() / 1000
    assert TOKEN_SECONDS - 100 < life <= TOKEN_SECONDS
    events = await guarded.http.get(given["stream"], headers=EVENTS)
    assert Wire(events.content).events[-1] == "done"
    assert events.headers["referrer-policy"] == "no-referrer"
    document = await guarded.http.get(given["stream"], headers=JSON)
    assert document.json()["text"] == "ab"
    assert given["token"] not in events.text + document.text


async def test_a_token_is_not_kept_by_anybody_on_the_way(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    answer = await guarded.http.post(f"{where}/token", headers=by_key(ALICE))
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "no-store" in (await guarded.http.get(answer.json()["stream"])).headers["cache-control"]


async def test_a_token_is_good_through_a_reconnect(guarded: Guarded, model: ModelServer) -> None:
    gate = f"token-{guarded.name}"
    where = await guarded.start(ALICE, ["a", "b"], gate=gate, gate_at=1)
    url = (await guarded.token(where, ALICE))["stream"]
    raw = b""
    async with guarded.http.stream("GET", url, headers=EVENTS) as live:
        async for chunk in live.aiter_bytes():
            raw += chunk
            if b'"a"' in raw:
                break
    first = Wire(raw)
    model.open_gate(gate)
    again = await guarded.http.get(url, headers={**EVENTS, "last-event-id": first.ids[-1]})
    second = Wire(again.content)
    whole = Wire((await guarded.http.get(url, headers=EVENTS)).content)
    assert first.frames + second.frames == whole.frames
    assert second.events[-1] == "done"
    ended = await guarded.http.get(url, headers={"last-event-id": whole.ids[-1]})
    assert ended.status_code == 204


async def test_event_source_follows_with_a_token(guarded: Guarded) -> None:
    where = await guarded.start(ALICE, ["a", "b", "c"], pace=0.02)
    url = (await guarded.token(where, ALICE))["stream"]
    said = await event_source(str(guarded.http.base_url).rstrip("/") + url)
    wire = Wire((await guarded.http.get(url, headers=EVENTS)).content)
    assert [(line["id"], line["kind"], line["data"]) for line in said if "kind" in line] == triples(wire)
    assert said[-1] == {"closed": 204}


async def test_event_source_gives_up_on_a_token_that_is_not_good(guarded: Guarded) -> None:
    where = await guarded.start(ALICE)
    base = str(guarded.http.base_url).rstrip("/")
    assert await event_source(f"{base}{where}?token=x") == [{"closed": 401}]


async def test_a_token_is_for_reading_alone(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    query = "?token=" + (await guarded.token(where, ALICE))["token"]
    for method, path in (
        ("DELETE", where),
        ("POST", f"{where}/token"),
        ("POST", "/stream"),
        ("POST", "/api/http_trigger"),
    ):
        answer = await guarded.http.request(method, path + query, json={"user": "x"})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    token = query.removeprefix("?token=")
    for headers in (by_key(token), {"x-api-key": token}):
        assert (await guarded.http.get(where, headers=headers)).status_code == 401


async def test_fault_23_a_token_that_is_not_good_is_the_same_401(guarded: Guarded) -> None:
    where, other = await guarded.finished(ALICE), await guarded.finished(BOB)
    place, now = where.rpartition("/")[2], await guarded.now_ms()
    token = (await guarded.token(where, ALICE))["token"]
    others = (await guarded.token(other, BOB))["token"]
    expiry, mac = token.split(".")
    removed, _ = StreamTokens(TOKEN_KEYS[2:], 60).issue(place, now)
    later = f"{int(expiry) + 1}.{mac}"
    malformed = [
        "",
        "x",
        mac,
        expiry,
        f"{expiry}.",
        f".{mac}",
        f"-{token}",
        f"{token}A",
        f"{token}%0A",
        "%00",
    ]
    malformed += [
        f"%20{token}",
        f"{token}=",
        f"{expiry}.{mac[:-1]}",
        f"9e9.{mac}",
        "A" * 6000,
        "%F0%9F%98%80",
    ]
    malformed += [f"{expiry}.{'%D9%A0' * 43}", f"9999999999999999.{mac}"]
    bad = (others, removed, later, *malformed)
    await asyncio.gather(*(refused(guarded, where, f"token={one}") for one in bad))
    await refused(guarded, where, f"token={token}&token={token}")
    await refused(guarded, where, f"token={token}&token=")


async def test_fault_23_each_character_of_a_token_counts(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    token = (await guarded.token(where, ALICE))["token"]
    assert re.fullmatch(r"[0-9]{10}\.[A-Za-z0-9_-]{43}", token)
    forged = [guarded.http.get(f"{where}?token={other}", headers=JSON) for other in flipped(token)]
    assert {answer.status_code for answer in await asyncio.gather(*forged)} == {401}
    assert len(forged) == len(token)
    assert (await guarded.http.get(f"{where}?token={token}", headers=JSON)).status_code == 200


async def test_a_token_has_one_spelling() -> None:
    place, tokens = "00" + "a" * 22, StreamTokens(TOKEN_KEYS, 60)
    token, expires_ms = tokens.issue(place, 1_700_000_000_000)
    assert tokens.holds(place, token, expires_ms - 1)
    assert not tokens.holds(
        place, f"00{token}", expires_ms - 1
    )  # the fuzzer's: the same number, another text


async def test_a_good_token_does_not_bring_a_stream_back(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    place = where.rpartition("/")[2]
    url = (await guarded.token(where, ALICE))["stream"]
    await guarded.redis.delete(f"{{{place[:2]}}}:log:{place}")
    assert (await guarded.http.get(url)).status_code == 410
    await guarded.redis.delete(f"{{{place[:2]}}}:job:{place}")
    assert (await guarded.http.get(url)).status_code == 404


async def test_keys_of_tokens_rotate_without_a_token_lost(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    place, now = where.rpartition("/")[2], await guarded.now_ms()
    token = (await guarded.token(where, ALICE))["token"]
    assert StreamTokens(TOKEN_KEYS[:1], 1).holds(place, token, now)  # the first key signs
    old, _ = old_tokens().issue(place, now)
    assert (await guarded.http.get(f"{where}?token={old}", headers=JSON)).status_code == 200


async def test_a_token_counts_only_where_nothing_else_is_shown(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    url = (await guarded.token(where, ALICE))["stream"]
    for headers, status in (
        (by_key("hf_unknown"), 401),
        ({"x-api-key": "hf_unknown"}, 401),
        ({"authorization": ""}, 401),
        ({"x-api-key": ""}, 401),
        (by_key(BOB), 404),
        (by_key(ALICE), 200),
    ):
        assert (await guarded.http.get(url, headers={**JSON, **headers})).status_code == status
    wrong = await guarded.http.get(f"{where}?token=x", headers={**JSON, **by_key(ALICE)})
    assert wrong.status_code == 200


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hasty(model: ModelServer, store: RedisServer) -> AsyncIterator[Host]:
    """Asks nobody who they are; its tokens live for a second."""
    settings = {"GATEWAY_TOKEN_SECONDS": "1", "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0]}
    async with uvicorn_host(model, store.url, "all", **settings) as host:
        yield host


async def test_fault_23_a_token_expires_by_the_clock_of_the_store(hasty: Host) -> None:
    where, _ = await hasty.finished(["a"])
    given = (await hasty.http.post(f"{where}/token")).json()

    async def answer() -> int:
        return (await hasty.http.get(given["stream"], headers=JSON)).status_code

    assert await until(answer, lambda status: status == 401) == 401
    seconds, micros = await hasty.redis.time()
    assert seconds + micros / 1e6 >= datetime.fromisoformat(given["expires_at"]).timestamp()


async def test_a_token_that_expires_lets_its_reader_stay_to_the_end(hasty: Host, model: ModelServer) -> None:
    where = await hasty.start(["a", "b"], gate="hasty", gate_at=1)
    url = (await hasty.http.post(f"{where}/token")).json()["stream"]
    async with hasty.http.stream("GET", url, headers=EVENTS) as live:
        assert live.status_code == 200

        async def answer() -> int:
            return (await hasty.http.get(url, headers=JSON)).status_code

        await until(answer, lambda status: status == 401)
        model.open_gate("hasty")
        assert Wire(await live.aread()).events[-1] == "done"


async def test_where_nobody_is_asked_a_wrong_token_is_still_none(hasty: Host) -> None:
    where, _ = await hasty.finished(["a"])
    assert (await hasty.http.get(where, headers=JSON)).status_code == 200
    answer = await hasty.http.get(f"{where}?token=x", headers=JSON)
    assert (answer.status_code, json.loads(answer.text)["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("keys", ["", TOKEN_KEYS[0]])
async def test_where_nobody_is_asked_another_processs_token_holds(store: RedisServer, keys: str) -> None:
    """A process without keys has a random one, so it cannot know; the stream's id opens it there anyway."""
    settings = Settings(redis_url=store.url, token_keys=keys, queue_name="jobs-of-nobody")
    async with within(settings) as one, within(settings) as other:
        started = await one.post("/stream", json={"user": "x"})
        where = started.headers["location"]
        url = (await one.post(f"{where}/token")).json()["stream"]
        assert "?token=" in url
        assert (await one.get(url, headers=JSON)).status_code == 200
        assert (await other.get(url, headers=JSON)).status_code == 200
        unknown = where[:-4] + "AAAA"
        assert (await other.get(f"{unknown}{url[len(where) :]}", headers=JSON)).status_code in (401, 404)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def turning(model: ModelServer, store: RedisServer) -> AsyncIterator[Host]:
    """Its connections are rotated all the time; its tokens live as long as they do by default."""
    settings = {
        "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0],
        "GATEWAY_STREAM_MAX_AGE_SECONDS": "0.5",
        "GATEWAY_QUEUE_NAME": "jobs-of-turning",
    }
    async with uvicorn_host(model, store.url, "all", **settings) as host:
        yield host


async def expired(host: Host, where: str) -> str:
    """The address of a stream with a token whose own time was over an hour ago."""
    seconds, _ = await host.redis.time()
    token, _ = StreamTokens(TOKEN_KEYS[:1], 1).issue(where.rpartition("/")[2], (seconds - 3600) * 1000)
    return f"{where}?token={token}"


async def test_fault_70_an_event_source_with_a_token_is_rotated_to_the_end(
    turning: Host, model: ModelServer
) -> None:
    """A token that is as old as they get: a stream that waited an hour for a worker."""
    where = await turning.start(["a", "b"], gate="turned", gate_at=1)
    url = str(turning.http.base_url.join(await expired(turning, where)))
    async with talking("follow.mjs", url, "fast") as talk:
        await talk.until(lambda said: said.count({"open": True}) > 2)
        model.open_gate("turned")
        said = await talk.end()
    seen = [(line["id"], line["kind"], line["data"]) for line in said if "kind" in line]
    assert seen == triples(Wire(await turning.log(where)))
    assert said[-1] == {"closed": 204}


async def test_fault_70_who_was_away_at_the_end_fetches_it_for_some_minutes(turning: Host) -> None:
    where, wire = await turning.finished(["a", "b"])
    place = where.rpartition("/")[2]
    job = f"{{{place[:2]}}}:job:{place}"
    url = await expired(turning, where)
    rest = await turning.http.get(url, headers={**EVENTS, "last-event-id": wire.ids[2]})
    assert rest.status_code == 200
    assert Wire(rest.content).ids == wire.ids[3:]
    seen = await turning.http.get(url, headers={**EVENTS, "last-event-id": wire.ids[-1]})
    assert seen.status_code == 204
    ended_ms = int(await turning.redis.hget(job, "ended_ms") or 0)
    for ago, status in ((MARGIN_SECONDS - 60, 200), (MARGIN_SECONDS, 401)):
        await turning.redis.hset(job, "ended_ms", str(ended_ms - round(ago * 1000)))
        assert (await turning.http.get(url, headers=EVENTS)).status_code == status
    await turning.redis.delete(job)
    gone, nobodys = [
        await turning.http.get(await expired(turning, path), headers=EVENTS)
        for path in (where, f"/stream/{NOBODY}")
    ]
    assert (gone.status_code, gone.text) == (nobodys.status_code, nobodys.text)
    assert gone.status_code == 401


async def test_fault_70_a_token_holds_as_long_as_a_stream_may_run(turning: Host) -> None:
    where = await turning.start(["a"], gate="never", gate_at=0)
    given = (await turning.http.post(f"{where}/token")).json()
    seconds, _ = await turning.redis.time()
    left = datetime.fromisoformat(given["expires_at"]).timestamp() - seconds
    assert left > Settings().max_run + 2 * Settings().stream_max_age
    await turning.http.delete(where)


async def test_fault_70_a_token_opens_no_metadata(guarded: Guarded) -> None:
    body = {"user": script(["a"]), "metadata": {"customer": "canary-of-metadata"}}
    answer = await guarded.http.post("/stream", json=body, headers={**EVENTS, **by_key(ALICE)})
    where = answer.headers["location"]
    url = (await guarded.token(where, ALICE))["stream"]
    own = (await guarded.http.get(where, headers={**JSON, **by_key(ALICE)})).json()
    assert own.pop("metadata") == body["metadata"]
    shown = await guarded.http.get(url, headers=JSON)
    assert shown.json() == own
    for path in (url, url.replace("/stream/", "/durable/")):
        for headers in (EVENTS, JSON):
            told = await guarded.http.get(path, headers=headers)
            assert told.status_code == 200
            assert "canary-of-metadata" not in told.text + str(told.headers)


async def test_an_operator_may_set_a_fixed_time_and_is_told_when_it_is_short(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for seconds, short in ((0.0, False), (60.0, True), (Settings().max_run + MARGIN_SECONDS, False)):
        caplog.clear()
        Gateway(Settings(token_seconds=seconds), {"chat": ["chat"]})
        assert ("GATEWAY_TOKEN_SECONDS is shorter than a stream may run" in caplog.text) is short
