"""npm `@durable-streams/client` against both hosts: cuts, rotation, resuming, cancelling, failures, kills."""

from __future__ import annotations

import json
import random
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from gateway.fold import Fold
from gateway.formats import durable_wire as wire
from gateway.protocol import Event, EventType
from tests.callers import ALICE, BOB, Guarded, by_key
from tests.hosts import JSON, LIMIT_SECONDS, NOBODY, Host
from tests.mortals import Mortal
from tests.support.cutter import Cutter
from tests.support.durable import NOWHERE, at, closed, expected
from tests.support.model_server import script
from tests.support.programs import node, talking

pytest_plugins = ("tests.hosts", "tests.mortals", "tests.callers", "tests.support.durable")
pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXTS = [
    "plain",
    "a\nb",
    "\r\n\r\n",
    "data: x\n\nid: 9\n\n",
    "\u2028\u2029\u0085",
    "\0",
    "\U0001f600",
    "\ufeff",
    " ",
]
SLOW = [f"{number} {text}" for number, text in enumerate(TEXTS * 3)]
LIVE = pytest.mark.parametrize("live", ["sse", "long-poll"])
Said = list[dict[str, Any]]


def base(host: Host) -> str:
    return str(host.http.base_url).rstrip("/")


def messages(said: Said) -> Said:
    """All that the client has handed over, in order."""
    return [item for line in said for item in line.get("batch", [])]


def types(said: Said) -> list[str]:
    return [one["type"] for one in messages(said)]


def deltas(said: Said) -> list[str]:
    return [one["data"]["delta_content"] for one in messages(said) if one["type"] == "message"]


def folded(said: Said) -> Fold:
    """What an application makes of the messages, by the documented rules."""
    fold = Fold()
    for one in messages(said):
        kind = EventType.MESSAGE if one["type"] == "message" else EventType(one["type"])
        fold.feed(one["id"], Event(kind, one["data"]))
    return fold


def errors(said: Said) -> Said:
    return [line for line in said if "error" in line]


async def start(url: str, chunks: list[str], **options: Any) -> str:
    """Start a stream at a host that has no workers; its location."""
    async with httpx.AsyncClient(base_url=url, timeout=LIMIT_SECONDS) as http:
        answer = await http.post("/stream", json={"user": script(chunks, **options)})
        assert answer.status_code == 202, answer.text
        where: str = answer.headers["location"]
        return where


async def page(url: str, where: str) -> Said:
    """All of an ended stream, in one page; and its status document's text, which must agree."""
    async with httpx.AsyncClient(base_url=url, timeout=LIMIT_SECONDS) as http:
        answer = await http.get(at(where))
        assert answer.headers["stream-closed"] == "true"
        said: Said = answer.json()
        document = (await http.get(where, headers=JSON)).json()
        assert folded([{"batch": said}]).text == document["text"]
        return said


@pytest.mark.parametrize("live", ["sse", "long-poll", "true"])
async def test_each_live_mode_reads_the_exact_log_as_it_grows(host: Host, live: str) -> None:
    gate = f"durable-live-{live}-{host.name}"
    where = await host.start(TEXTS, gate=gate, gate_at=2)
    async with talking("durable.mjs", base(host) + at(where), live) as talk:
        await talk.until(lambda said: len(deltas(said)) == 2 and said[-1]["upToDate"])
        host.model.open_gate(gate)
        said = await talk.end()
    assert messages(said) == expected(await host.log(where))
    assert deltas(said) == TEXTS
    assert [line["begun"] for line in said if "begun" in line] == ["-1"]
    assert said[-1] == {"ended": True, "offset": wire.offset(messages(said)[-1]["id"]), "upToDate": True}


async def test_catching_up_reads_what_is_there_and_ends(host: Host) -> None:
    where = await host.start(TEXTS)
    await closed(host, where)
    said = await node("durable.mjs", base(host) + at(where), "false")
    assert messages(said) == expected(await host.log(where))
    assert said[-1]["ended"] is True


@LIVE
async def test_through_cuts_at_random_bytes_to_the_exact_log(host: Host, live: str) -> None:
    """The client comes back by itself where no answer had begun; in the middle of one it tells, and we do."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    bounds = [0, rng.randrange(1, 400), *(rng.randrange(700, 2000) for _ in range(8))]
    gate = f"durable-cuts-{live}-{host.name}"
    where = await host.start(SLOW, gate=gate, gate_at=1, pace=0.02)
    async with (
        Cutter(base(host), bounds) as cutter,
        talking("durable.mjs", cutter.url + at(where), live) as talk,
    ):
        await talk.until(deltas)
        host.model.open_gate(gate)
        said = await talk.end()
    assert cutter.cuts >= 3
    assert {error["error"] for error in errors(said)} <= {"TypeError"}  # as fetch tells of a cut
    assert messages(said) == expected(await host.log(where))
    assert deltas(said) == SLOW


@LIVE
async def test_of_an_answer_that_is_cut_in_the_middle_nothing_is_handed_over(host: Host, live: str) -> None:
    """The large text is in the live answer, and in the page after it: either may be cut.

    One that has the stream's end is no error to the client when it is cut; it never hands it over, though.
    """
    first, second = random.randrange(2500, 8000), random.randrange(1000, 8000)
    print(f"after {first} and {second} bytes")
    gate = f"durable-middle-{live}-{host.name}"
    chunks = ["a", "x" * 10_000, "b"]
    where = await host.start(chunks, gate=gate, gate_at=1)
    async with (
        Cutter(base(host), [first, second]) as cutter,
        talking("durable.mjs", cutter.url + at(where), live) as talk,
    ):
        await talk.until(deltas)
        host.model.open_gate(gate)
        said = await talk.end()
    assert cutter.cuts >= 1
    assert live != "sse" or errors(said)
    assert {error["error"] for error in errors(said)} <= {"TypeError"}
    assert sum("begun" in line for line in said) > cutter.cuts
    assert messages(said) == expected(await host.log(where))
    assert deltas(said) == chunks


@LIVE
async def test_a_new_client_goes_on_at_the_offset_of_another(host: Host, live: str) -> None:
    gate = f"durable-resume-{live}-{host.name}"
    where = await host.start(TEXTS, gate=gate, gate_at=3)
    async with talking("durable.mjs", base(host) + at(where), live) as talk:
        first = list(await talk.until(lambda said: len(deltas(said)) == 3))
    host.model.open_gate(gate)
    offset = next(line["offset"] for line in reversed(first) if "batch" in line)
    rest = await node("durable.mjs", base(host) + at(where), live, offset)
    assert messages(first + rest) == expected(await host.log(where))
    assert deltas(first + rest) == TEXTS


async def test_from_now_on_comes_only_what_is_new(host: Host) -> None:
    gate = f"durable-now-{host.name}"
    where = await host.start(["old ", "new ", "text"], gate=gate, gate_at=1)
    async with talking("durable.mjs", base(host) + at(where), "sse") as known:
        await known.until(lambda said: deltas(said) == ["old "])
        async with talking("durable.mjs", base(host) + at(where), "sse", "now") as talk:
            await talk.until(lambda said: "begun" in said[-1] if said else False)
            host.model.open_gate(gate)
            said = await talk.end()
    assert deltas(said) == ["new ", "text"]


@LIVE
async def test_a_cancelled_stream_ends_with_that_event(host: Host, live: str) -> None:
    gate = f"durable-cancel-{live}-{host.name}"
    where = await host.start(["a", "b"], gate=gate, gate_at=1)
    async with talking("durable.mjs", base(host) + at(where), live) as talk:
        await talk.until(lambda said: deltas(said) == ["a"])
        assert (await host.http.delete(where)).status_code == 200
        said = await talk.end()
    host.model.open_gate(gate)
    assert types(said)[-1] == "cancelled"
    assert said[-1]["ended"] is True
    assert not errors(said)


@LIVE
async def test_a_failed_stream_ends_with_that_event(host: Host, live: str) -> None:
    where = await host.start([], status=400)
    said = await node("durable.mjs", base(host) + at(where), live)
    assert types(said)[-1] == "failed"
    assert set(messages(said)[-1]["data"]) == {"code", "message", "retryable"}
    assert said[-1]["ended"] is True


async def test_the_stages_of_a_chain_come_as_they_are(host: Host) -> None:
    answer = await host.http.post("/stream", json={"user": "Write about rivers.", "chain": "report"})
    where = answer.headers["location"]
    said = await node("durable.mjs", base(host) + at(where), "sse")
    assert messages(said) == expected(await host.log(where))
    document = await host.status(where)
    assert len(document["stages"]) > 1
    assert [stage.document() for stage in folded(said).stages] == document["stages"]


async def test_a_worker_is_killed_with_equal_text_and_with_other(mortal: Mortal) -> None:
    """No seam in the one, a reset in the other; each read as events and by polls."""
    gate, other = f"durable-kill-{mortal.name}", ["quite ", "other ", "text"]
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(mortal.worker())
        equal = await start(mortal.url, TEXTS, gate=gate, gate_at=4)
        changed = await start(mortal.url, TEXTS, gate=gate, gate_at=4, again=other)
        talks = [
            await stack.enter_async_context(talking("durable.mjs", mortal.url + at(where), live))
            for where in (equal, changed)
            for live in ("sse", "long-poll")
        ]
        for talk in talks:
            await talk.until(lambda said: len(deltas(said)) == 4)
        await first.kill()
        mortal.model.open_gate(gate)
        await stack.enter_async_context(mortal.worker())
        seamless, reset = [[await talk.end() for talk in pair] for pair in (talks[:2], talks[2:])]
    for said in seamless:
        assert "reset" not in types(said)
        assert deltas(said) == TEXTS
        assert messages(said) == await page(mortal.url, equal)
        assert not errors(said)
    for said in reset:
        assert types(said).count("reset") == 1
        assert folded(said).text == "".join(other)
        assert messages(said) == await page(mortal.url, changed)
        assert not errors(said)


KEEPS_SSE = {"sseResilience": {"minConnectionDuration": 0}}


async def test_rotation_is_survived(mortal: Mortal) -> None:
    """By its own defaults the client ends after three connections of less than a second: a proxy's fault."""
    gate = f"durable-age-{mortal.name}"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(mortal.worker())
        where = await start(mortal.rotating_url, TEXTS, gate=gate, gate_at=4)
        url = mortal.rotating_url + at(where)
        kinds: list[tuple[str, dict[str, Any]]] = [("sse", KEEPS_SSE), ("sse", {}), ("long-poll", {})]
        talks = [
            await stack.enter_async_context(talking("durable.mjs", url, live, "-1", json.dumps(options)))
            for live, options in kinds
        ]
        for talk in talks:  # an empty batch for each connection, and for each poll that was in vain
            await talk.until(lambda said: sum(line.get("batch") == [] for line in said) >= 4)
        mortal.model.open_gate(gate)
        kept, gave_up, polled = [await talk.end() for talk in talks]
    for said in (kept, gave_up, polled):
        assert deltas(said) == TEXTS
        assert messages(said) == await page(mortal.url, where)
        assert not errors(said)
    assert [sum("begun" in line for line in said) for said in (kept, polled)] == [1, 1]
    assert sum("begun" in line for line in gave_up) == sum("warning" in line for line in gave_up) + 1 > 1


@pytest.mark.parametrize(
    ("name", "offset", "status"), [(NOBODY, "-1", 404), ("", NOWHERE, 410), ("", "a", 400)]
)
async def test_a_refusal_is_final_to_the_client(host: Host, name: str, offset: str, status: int) -> None:
    where = at(name) if name else at(await host.start(["a"]))
    [error] = await node("durable.mjs", base(host) + where, "sse", offset)
    assert (error["error"], error["status"]) == ("FetchError", status)


async def test_a_caller_reads_its_own_streams_alone(guarded: Guarded) -> None:
    where = await guarded.finished(ALICE)
    url = str(guarded.http.base_url).rstrip("/") + at(where)
    mine, theirs = [
        await node("durable.mjs", url, "sse", "-1", json.dumps({"headers": by_key(key)}))
        for key in (ALICE, BOB)
    ]
    assert mine[-1]["ended"] is True
    assert [(line["error"], line["status"]) for line in theirs] == [("FetchError", 404)]
