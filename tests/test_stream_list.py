"""GET /streams on both hosts, with two owners: the caller's own, the newest first, page by page."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx
import pytest

from tests.callers import ALICE, BOB, CAROL, Guarded, by_key
from tests.hosts import EVENTS, JSON
from tests.support.model_server import script

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")
MEMBERS = {
    *("id", "status", "chain", "thread", "created_at", "started_at", "ended_at", "metadata"),
    *("last_event_id", "finish_reason", "error", "usage"),
}


async def ended(guarded: Guarded, who: str = CAROL, **body: Any) -> str:
    """A stream at its end; its id."""
    asked = {"user": script(["a", "b"]), **body}
    made = await guarded.http.post("/stream", json=asked, headers=by_key(who))
    assert made.status_code == 202, made.text
    await guarded.http.get(made.headers["location"], headers={**EVENTS, **by_key(who)})
    stream_id: str = made.json()["id"]
    return stream_id


async def get(guarded: Guarded, query: str = "", who: str = CAROL, **headers: str) -> httpx.Response:
    return await guarded.http.get(f"/streams?{query}", headers={**by_key(who), **headers})


async def ids(guarded: Guarded, query: str = "", who: str = CAROL) -> list[str]:
    answer = await get(guarded, query, who)
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["streams"]]


async def test_a_row_is_what_the_status_document_says(guarded: Guarded) -> None:
    mark = uuid.uuid4().hex
    one = await ended(guarded, metadata={"about": mark})
    other = await ended(guarded, BOB, metadata={"about": mark})
    answer = await get(guarded, f"metadata.about={mark}")
    assert answer.headers["cache-control"] == "no-store"
    [row] = answer.json()["streams"]
    assert set(row) == MEMBERS
    told = (await guarded.http.get(f"/stream/{one}", headers={**JSON, **by_key(CAROL)})).json()
    assert {name: value for name, value in row.items() if name in told} == {
        name: value for name, value in told.items() if name in row
    }
    assert (row["id"], row["finish_reason"], row["thread"]) == (one, "stop", None)
    assert await ids(guarded, f"metadata.about={mark}", BOB) == [other]


async def test_pages_have_all_of_them_once_the_newest_first(guarded: Guarded) -> None:
    thread = str(uuid.uuid4())
    made = [await ended(guarded, thread=thread) for _ in range(5)]
    seen: list[str] = []
    query = f"thread={thread}&limit=2"
    while True:
        page = (await get(guarded, query)).json()
        seen += [row["id"] for row in page["streams"]]
        if page["next"] is None:
            break
        query = f"thread={thread}&limit=2&before={page['next']}"
    assert seen == made[::-1]
    whole = await ids(guarded, "limit=100")
    assert [one for one in whole if one in made] == made[::-1]
    await guarded.http.delete(f"/stream/{made[2]}?purge=true", headers=by_key(CAROL))
    assert made[2] not in await ids(guarded, "limit=100")
    assert (await guarded.http.delete(f"/threads/{thread}", headers=by_key(CAROL))).status_code == 204
    assert not set(made) & set(await ids(guarded, "limit=100"))


async def test_each_filter_leaves_out_what_does_not_fit(guarded: Guarded) -> None:
    mark = uuid.uuid4().hex
    done = await ended(guarded, metadata={"about": mark, "number": 7})
    failed = await ended(guarded, user=script(["x"], status=400), metadata={"about": mark})
    wanted = f"metadata.about={mark}"
    assert await ids(guarded, wanted) == [failed, done]
    assert await ids(guarded, f"{wanted}&status=failed") == [failed]
    assert await ids(guarded, f"{wanted}&status=done,failed&chain=chat") == [failed, done]
    assert await ids(guarded, f"{wanted}&chain=report") == []
    assert await ids(guarded, f"{wanted}&metadata.number=7") == [done]
    [row] = (await get(guarded, f"{wanted}&status=failed")).json()["streams"]
    assert row["error"]["code"] == "model_refused" or row["error"]["code"]
    live = await guarded.http.post(
        "/stream",
        json={"user": script(["a"], gate=f"list {guarded.name}"), "metadata": {"about": mark}},
        headers=by_key(CAROL),
    )
    rows = (await get(guarded, f"{wanted}&status=queued,running")).json()["streams"]
    assert [row["id"] for row in rows] == [live.json()["id"]]
    assert (rows[0]["ended_at"], rows[0]["finish_reason"], rows[0]["usage"]) == (None, None, None)
    await guarded.http.delete(live.headers["location"], headers=by_key(CAROL))
    assert await ids(guarded, f"{wanted}&status=cancelled") == [live.json()["id"]]


async def test_what_is_past_its_retention_is_not_listed(guarded: Guarded) -> None:
    one = await ended(guarded)
    assert one in await ids(guarded, "limit=100")
    await guarded.redis.delete(f"{{{one[:2]}}}:log:{one}")
    assert one not in await ids(guarded, "limit=100")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("before=x", "before"),
        ("before=1-2", "before"),
        ("status=no", "status"),
        ("status=", "status"),
        ("metadata.other=1", "metadata.other"),
    ],
)
async def test_a_wrong_parameter_is_named(guarded: Guarded, query: str, field: str) -> None:
    answer = await get(guarded, query)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_who_is_not_known_and_what_is_not_told(guarded: Guarded) -> None:
    assert (await guarded.http.get("/streams")).status_code == 401
    assert (await get(guarded, accept="text/plain")).status_code == 406
    for accept in ("application/json", "*/*", "text/html, */*;q=0.1"):
        assert (await get(guarded, "limit=1", accept=accept)).status_code == 200


async def test_many_starts_at_once_are_all_there(guarded: Guarded) -> None:
    mark = uuid.uuid4().hex
    made = await asyncio.gather(*(ended(guarded, ALICE, metadata={"about": mark}) for _ in range(10)))
    assert set(await ids(guarded, f"metadata.about={mark}", ALICE)) == set(made)
