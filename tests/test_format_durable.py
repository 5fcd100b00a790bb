"""Durable Streams over HTTP, on both hosts: pages, long-polls, events, and what a client may cache."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.formats.durable import wire
from gateway.formats.durable.endpoints import LONG_POLL_SECONDS
from gateway.protocol import Event, EventType
from tests.hosts import NOBODY, TEXTS, Host
from tests.support.durable import at, closed, events, expected, place, subscribed
from tests.support.following import Stream

pytest_plugins = ("tests.hosts", "tests.mortals", "tests.support.durable")
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_page_is_the_log_as_messages(host: Host) -> None:
    where = await host.start(TEXTS)
    answer = await closed(host, where)
    said = answer.json()
    assert said == expected(await host.log(where))
    assert [one["data"]["delta_content"] for one in said if one["type"] == "message"] == TEXTS
    assert [said[0]["type"], said[-1]["type"]] == ["start", "done"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["stream-up-to-date"] == "true"
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert place(answer) == wire.offset(said[-1]["id"])
    assert (await host.http.get(at(where), params={"offset": "-1"})).json() == said


async def test_from_every_offset_come_exactly_the_messages_after_it(host: Host) -> None:
    where = await host.start(TEXTS)
    said = (await closed(host, where)).json()
    for number, one in enumerate(said, 1):
        rest = await closed(host, where, offset=wire.offset(one["id"]))
        assert rest.json() == said[number:]
        async with events(host.http, where, wire.offset(one["id"])) as sent:
            await sent.end()
        assert sent.messages == said[number:]
        assert sent.controls[-1]["streamClosed"] is True


async def test_pages_of_a_long_log_fit_together(host: Host, written: Stream, redis_log: Redis) -> None:
    large = "x" * 300_000
    for _ in range(3):
        await written.texts(*["é" * 1000] * 60, large, large)
    await written.texts("y" * 1_500_000)  # This event is larger than a page.
    await written.end()
    log = await written.log_bytes(redis_log)
    said: list[dict[str, Any]] = []
    answers: list[httpx.Response] = []
    offset = "-1"
    while not answers or "stream-closed" not in answers[-1].headers:
        answers.append(await host.http.get(at(written.id), params={"offset": offset}))
        said += answers[-1].json()
        assert offset == "-1" or place(answers[-1]) > offset
        offset = place(answers[-1])
    assert said == expected(log)
    assert len(answers) > 3
    assert ["stream-up-to-date" in answer.headers for answer in answers] == [False] * (len(answers) - 1) + [
        True
    ]
    async with events(host.http, written.id, "-1") as sent:
        await sent.end()
    assert sent.messages == said
    assert [one.get("upToDate", False) for one in sent.controls] == [False] * (len(sent.controls) - 1) + [
        True
    ]
    assert sent.kinds == ["data", "control"] * len(sent.controls)


async def test_now_is_the_end_without_what_was(host: Host, written: Stream) -> None:
    last = wire.offset(await written.texts("a", "b"))
    answer = await host.http.get(at(written.id), params={"offset": "now"})
    assert (answer.status_code, answer.content) == (200, b"[]")
    assert place(answer) == last
    assert answer.headers["stream-up-to-date"] == "true"
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers
    assert "stream-closed" not in answer.headers
    await written.end()
    assert (await host.http.get(at(written.id), params={"offset": "now"})).headers["stream-closed"] == "true"
    rest = await host.http.get(at(written.id), params={"offset": last})
    assert [one["type"] for one in rest.json()] == ["done"]


async def test_head_tells_where_the_stream_ends(host: Host, written: Stream) -> None:
    last = await written.texts("a")
    answer = await host.http.head(at(written.id))
    assert (answer.status_code, answer.content) == (200, b"")
    assert place(answer) == wire.offset(last)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert "stream-closed" not in answer.headers
    last = await written.end()
    answer = await host.http.head(at(written.id))
    assert (place(answer), answer.headers["stream-closed"]) == (wire.offset(last), "true")
    refused = await host.http.head(at(NOBODY))
    assert (refused.status_code, refused.content) == (404, b"")


async def test_a_long_poll_gives_what_is_there_at_once(host: Host, written: Stream) -> None:
    await written.texts("a")
    answer = await host.http.get(at(written.id), params={"offset": "-1", "live": "long-poll"})
    assert answer.status_code == 200
    assert [one["type"] for one in answer.json()] == ["start", "message"]
    assert answer.headers["stream-up-to-date"] == "true"
    assert answer.headers["stream-cursor"].isdigit()
    assert answer.headers["cache-control"] == "no-store"
    echoed = {"offset": "-1", "live": "long-poll", "cursor": answer.headers["stream-cursor"]}
    later = await host.http.get(at(written.id), params=echoed)
    assert int(later.headers["stream-cursor"]) > int(answer.headers["stream-cursor"])


@pytest.mark.parametrize("offset", ["now", "last"])
async def test_a_long_poll_is_woken_by_what_comes(
    host: Host, written: Stream, redis_log: Redis, offset: str
) -> None:
    last = wire.offset(await written.texts("a"))
    asked = {"offset": last if offset == "last" else "now", "live": "long-poll"}
    polling = asyncio.create_task(host.http.get(at(written.id), params=asked))
    await subscribed(redis_log, written.id)
    await written.texts("b")
    async with asyncio.timeout(LONG_POLL_SECONDS / 2):  # The poll is woken early.
        answer = await polling
    assert answer.status_code == 200
    assert [one["data"]["delta_content"] for one in answer.json()] == ["b"]
    assert answer.headers["etag"].startswith(f'"{written.id}:{last}:')


async def test_a_long_poll_at_the_end_of_a_closed_stream_is_told_so(host: Host, written: Stream) -> None:
    last = wire.offset(await written.end())
    for offset in (last, "now"):
        answer = await host.http.get(at(written.id), params={"offset": offset, "live": "long-poll"})
        assert (answer.status_code, answer.content) == (204, b"")
        assert place(answer) == last
        assert answer.headers["stream-closed"] == answer.headers["stream-up-to-date"] == "true"


async def test_a_vanished_long_poll_leaves_nothing_behind(
    host: Host, written: Stream, redis_log: Redis
) -> None:
    asked = {"offset": "now", "live": "long-poll"}
    polling = asyncio.create_task(host.http.get(at(written.id), params=asked))
    await subscribed(redis_log, written.id)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    # After the full time the subscription would end by itself.
    async with asyncio.timeout(LONG_POLL_SECONDS / 2):
        await subscribed(redis_log, written.id, 0)


async def test_events_come_with_where_they_end(host: Host, written: Stream) -> None:
    first = await written.texts("a")
    async with events(host.http, written.id, "now") as sent:
        told = await sent.until(1)
        cursor = told.pop("streamCursor")
        assert cursor.isdigit()
        assert told == {"streamNextOffset": wire.offset(first), "upToDate": True}
        second = await written.texts("b")
        told = await sent.until(2)
        assert told == {"streamNextOffset": wire.offset(second), "streamCursor": cursor, "upToDate": True}
        await written.end()
        await sent.end()
    assert sent.kinds == ["control", "data", "control", "data", "control"]
    assert sent.controls[-1].keys() == {"streamNextOffset", "upToDate", "streamClosed"}
    assert [one["type"] for one in sent.messages] == ["message", "done"]


async def test_events_at_the_end_of_a_closed_stream_end_at_once(host: Host, written: Stream) -> None:
    last = wire.offset(await written.end())
    for offset in (last, "now"):
        async with events(host.http, written.id, offset) as sent:
            await sent.end()
        assert sent.kinds == ["control"]
        assert sent.controls == [{"streamNextOffset": last, "upToDate": True, "streamClosed": True}]


async def test_a_page_that_is_held_already_is_not_sent_again(host: Host, written: Stream) -> None:
    first = await host.http.get(at(written.id))
    tag = first.headers["etag"]
    for held in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = await host.http.get(at(written.id), headers={"if-none-match": held})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
        assert place(answer) == place(first)
    assert (await host.http.get(at(written.id), headers={"if-none-match": '"other"'})).status_code == 200
    await written.texts("a")
    answer = await host.http.get(at(written.id), headers={"if-none-match": tag})
    assert answer.status_code == 200
    assert answer.headers["etag"] != tag


async def test_the_kinds_of_events_are_those_of_the_log(host: Host, written: Stream) -> None:
    kinds = [kind for kind in EventType if kind not in (EventType.MESSAGE, EventType.START, EventType.DONE)]
    plain = [kind for kind in kinds if kind not in (EventType.FAILED, EventType.CANCELLED)]
    await written.write(
        *(Event(kind, {"any": [1, "é"]}) for kind in plain), Event(EventType.FAILED, {"code": "x"})
    )
    said = (await closed(host, written.id)).json()
    assert [one["type"] for one in said] == ["start", *plain, "failed"]
