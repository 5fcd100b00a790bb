"""Requests of Durable Streams' readers that are refused, on both hosts.

Checked: rules, owners, limits, lost or expired data.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from gateway.formats.durable import wire
from gateway.store.log import Log
from tests.callers import ALICE, BOB, MOST_STREAM_READERS, ORIGIN, Guarded, by_key
from tests.hosts import NOBODY, Host
from tests.support.durable import LIVE, NOWHERE, at, events
from tests.support.following import Stream

pytest_plugins = ("tests.hosts", "tests.mortals", "tests.callers", "tests.support.durable")
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(
    "query",
    [
        "offset=",
        "offset=0",
        "offset=a",
        "offset=0,1",
        "offset=0%201",
        f"offset={NOWHERE}%0a",
        "offset=%ff%00",
        "offset=-1&offset=-1",
        "offset=-2",
        "offset=NOW",
        "live=sse",
        "live=long-poll",
        "offset=-1&live=",
        "offset=-1&live=true",
        "offset=-1&live=sse&live=sse",
        "offset=-1&cursor=1&cursor=2",
        f"offset={'0' * 5000}",
    ],
)
async def test_a_query_that_breaks_a_rule_is_malformed(host: Host, written: Stream, query: str) -> None:
    for name in (written.id, NOBODY):
        answer = await host.http.get(f"{at(name)}?{query}")
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "malformed"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    asked=st.lists(
        st.tuples(
            st.sampled_from(["offset", "live", "cursor", "token", "other"]) | st.text(max_size=5),
            st.sampled_from(["-1", "now", "long-poll", "sse", NOWHERE, "1"]) | st.text(max_size=30),
        ),
        max_size=4,
    )
)
async def test_any_query_whatever_is_refused_for_an_unknown_stream(
    hosts: dict[str, Host], asked: list[tuple[str, str]]
) -> None:
    query = urlencode(asked, errors="surrogatepass")
    answer = await hosts["uvicorn"].http.get(f"{at(NOBODY)}?{query}")
    assert answer.status_code in (400, 401, 404)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_any_cursor_is_taken(host: Host, written: Stream) -> None:
    for cursor in ("", "x", "-1", "9" * 15, "9" * 5000, "%00"):
        asked = {"offset": "-1", "live": "long-poll", "cursor": cursor}
        answer = await host.http.get(at(written.id), params=asked)
        assert answer.status_code == 200
        assert answer.headers["stream-cursor"].isdigit()


@pytest.mark.parametrize("live", ["", *LIVE])
async def test_an_offset_that_the_log_does_not_hold_is_gone(host: Host, written: Stream, live: str) -> None:
    asked = {"offset": NOWHERE} | ({"live": live} if live else {})
    answer = await host.http.get(at(written.id), params=asked)
    assert answer.status_code == 410
    assert answer.json()["code"] == "log_lost"
    assert answer.json()["status"] == 410


async def test_a_reader_whose_log_is_lost_is_sent_away_and_told_when_it_comes_back(
    host: Host, written: Stream, redis_log: Redis
) -> None:
    kept_id = await written.texts("a")
    kept = await written.log_bytes(redis_log)
    lost = wire.offset(await written.texts("b"))
    async with events(host.http, written.id, "-1") as sent:
        assert (await sent.until(1))["streamNextOffset"] == lost
        job, log, _ = Log.keys(written.id)
        # The store returns without its last second of data.
        async with redis_log.pipeline(transaction=True) as store:
            store.set(log, kept, keepttl=True)
            store.hset(job, "last_id", kept_id)
            await store.execute()
        await written.claim_again()
        await written.texts("c")
        await sent.end()
    assert len(sent.controls) == 1
    for live in ({}, *({"live": live} for live in LIVE)):
        answer = await host.http.get(at(written.id), params={"offset": lost} | live)
        assert (answer.status_code, answer.json()["code"]) == (410, "log_lost")
    said = (await host.http.get(at(written.id))).json()
    assert [one["data"].get("delta_content") for one in said] == [None, "a", "c"]


@pytest.mark.parametrize("live", ["", *LIVE])
async def test_a_stream_past_its_retention_is_gone(
    host: Host, written: Stream, redis_log: Redis, live: str
) -> None:
    await redis_log.delete(Log.keys(written.id)[1])
    asked = {"offset": "-1"} | ({"live": live} if live else {})
    answer = await host.http.get(at(written.id), params=asked)
    assert (answer.status_code, answer.json()["code"]) == (410, "gone")


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
async def test_there_is_no_writing(hosts: dict[str, Host], method: str) -> None:
    answer = await hosts["uvicorn"].http.request(method, at(NOBODY))
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("live", ["", *LIVE])
async def test_anothers_stream_is_as_unknown_as_none(guarded: Guarded, live: str) -> None:
    where = await guarded.finished(ALICE)
    asked = {"offset": "-1"} | ({"live": live} if live else {})
    mine = await guarded.http.get(at(where), params=asked, headers=by_key(ALICE))
    assert mine.status_code == 200
    for name in (where, NOBODY):
        theirs = await guarded.http.get(at(name), params=asked, headers=by_key(BOB))
        assert (theirs.status_code, theirs.json()["code"]) == (404, "not_found")
        assert (await guarded.http.head(at(name), headers=by_key(BOB))).status_code == 404
    nobodys = await guarded.http.get(at(where), params=asked)
    assert (nobodys.status_code, nobodys.json()["code"]) == (401, "unauthorized")


async def test_a_token_of_the_stream_lets_its_bearer_read(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    token = (await guarded.http.post(f"{where}/token", headers=by_key(ALICE))).json()["token"]
    assert (await guarded.http.get(at(where), params={"token": token})).status_code == 200
    assert (await guarded.http.get(at(where), params={"token": "x"})).status_code == 401


async def test_a_page_of_a_listed_origin_may_read_what_the_headers_tell(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    answer = await guarded.http.get(at(where), headers={**by_key(ALICE), "origin": ORIGIN})
    shown = set(answer.headers["access-control-expose-headers"].split(", "))
    told = {name for name in answer.headers if name.startswith("stream-")}
    assert told | {"etag", "stream-cursor"} <= shown
    asks = {"origin": ORIGIN, "access-control-request-method": "GET"}
    leave = await guarded.http.options(at(where), headers=asks)
    assert leave.status_code == 204
    # On Functions the platform answers preflights itself, with its own list.
    if guarded.name == "uvicorn":
        assert "if-none-match" in leave.headers["access-control-allow-headers"]


async def test_one_reader_too_many_is_told_to_come_later(guarded: Guarded) -> None:
    known = by_key(ALICE)
    where = await guarded.start(ALICE, ["a"], gate=f"never-{guarded.name}-durable")
    async with AsyncExitStack() as stack:
        readers = []  # A reader without a reference is closed.
        for _ in range(MOST_STREAM_READERS):
            readers.append(await stack.enter_async_context(events(guarded.http, where, "-1", **known)))
            await readers[-1].until(1)
        end = (await guarded.http.head(at(where), headers=known)).headers["stream-next-offset"]
        for live in LIVE:
            asked = {"offset": end, "live": live}
            answer = await guarded.http.get(at(where), params=asked, headers=known)
            assert (answer.status_code, answer.json()["code"]) == (429, "too_many_readers")
            assert int(answer.headers["retry-after"]) > 0
        assert (await guarded.http.get(at(where), headers=known)).status_code == 200
    await guarded.http.delete(where, headers=known)
