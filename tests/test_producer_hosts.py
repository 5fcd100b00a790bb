"""A producer by HTTP on both hosts: opened, written, followed and ended, as who has only HTTP would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from tests.callers import ALICE, BOB, Guarded, by_key
from tests.hosts import EVENTS, Host
from tests.support.described import Described

pytest_plugins = ("tests.hosts", "tests.callers")
pytestmark = pytest.mark.asyncio(loop_scope="session")

LINES = {"content-type": "application/x-ndjson"}
SAID = [
    {"type": "stage", "name": "c", "state": "started"},
    {"type": "text", "stage": "c", "text": "Hel"},
    {"type": "text", "stage": "c", "text": "lo\n\nid: 9"},
    {"type": "stage", "name": "c", "state": "finished"},
    {"type": "done"},
]


async def test_what_a_producer_says_is_followed_while_it_says_it(host: Host) -> None:
    opened = (await host.http.post("/stream", json={"producer": True, "chain": "c"})).json()
    where, token = opened["stream"], {"x-write-token": opened["write_token"]}
    following = asyncio.create_task(host.read(where))
    for position, line in enumerate(SAID):
        answer = await host.http.post(
            f"{where}/events?position={position}", content=json.dumps(line), headers={**LINES, **token}
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["position"] == position + 1
    wire = await following
    assert wire.frames == await host.log(where)
    assert wire.events == ["start", "stage", "message", "message", "stage", "done"]
    assert (await host.status(where))["text"] == "Hello\n\nid: 9"


async def test_it_is_as_described_and_only_its_owner_opens_it_again(guarded: Guarded) -> None:
    described = await Described.of(guarded.http)
    asked, key = {"producer": True, "chain": "c"}, {"idempotency-key": f"producer {guarded.name}"}
    alice, events = {**by_key(ALICE), **key}, "/stream/{id}/events"
    opened = await described.ask("POST", "/stream", json=asked, headers=alice)
    assert opened.status_code == 201
    place, token = opened.json()["id"], {"x-write-token": opened.json()["write_token"]}
    bobs = await described.ask("POST", "/stream", json=asked, headers={**by_key(BOB), **key})
    assert bobs.json()["id"] != place
    followed = await guarded.http.get(f"/stream/{place}", headers={**by_key(BOB), **EVENTS})
    assert followed.status_code == 404

    async def write(
        body: bytes, position: int = 0, headers: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[int, str]:
        given = {**LINES, **token, **headers}
        query = {"position": position}
        answer = await described.ask("POST", events, place, params=query, content=body, headers=given)
        return answer.status_code, answer.json().get("code", "")

    body = b"\n".join(json.dumps(line).encode() for line in SAID[:2])
    assert await write(body, headers={"x-write-token": bobs.json()["write_token"]}) == (401, "unauthorized")
    assert await write(body, position=1) == (409, "wrong_position")
    assert await write(b"x") == (422, "invalid")
    assert await write(body, headers={"content-type": "text/plain"}) == (415, "not_ndjson")
    assert await write(body) == (200, "")
    again = await described.ask("POST", "/stream", json=asked, headers=alice)
    assert again.json()["id"] == place
    assert await write(body) == (409, "stream_taken")
    await guarded.http.delete(f"/stream/{place}", headers=by_key(ALICE))
    await guarded.http.delete(bobs.headers["location"], headers=by_key(BOB))
    assert await write(body) == (409, "stream_ended")
