"""npm `@durable-streams/client` on both hosts: live and not live, cuts, resuming, cancelling, failures."""

from __future__ import annotations

import json
import random

import pytest

from gateway.formats.durable import wire
from tests.callers import ALICE, BOB, Guarded, by_key
from tests.hosts import NOBODY, TEXTS, Host
from tests.support.cutter import Cutter
from tests.support.durable import (
    NOWHERE,
    at,
    closed,
    deltas,
    errors,
    expected,
    folded,
    messages,
    types,
)
from tests.support.programs import node, talking

pytest_plugins = ("tests.hosts", "tests.mortals", "tests.callers", "tests.support.durable")
pytestmark = pytest.mark.asyncio(loop_scope="session")

SLOW = [f"{number} {text}" for number, text in enumerate(TEXTS * 3)]
LIVE = pytest.mark.parametrize("live", ["sse", "long-poll"])


def base(host: Host) -> str:
    return str(host.http.base_url).rstrip("/")


@pytest.mark.parametrize("live", ["sse", "true"])  # `true` is the default: polls.
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
    """If no answer had begun, the client reconnects by itself.

    In the middle of an answer it reports an error, and the test reconnects.
    """
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
    assert {error["error"] for error in errors(said)} <= {"TypeError"}  # fetch reports a cut as TypeError.
    assert messages(said) == expected(await host.log(where))
    assert deltas(said) == SLOW


@LIVE
async def test_of_an_answer_that_is_cut_in_the_middle_nothing_is_handed_over(host: Host, live: str) -> None:
    """The large text is in the live answer and in the page after it.

    Either may be cut. The client reports no error if the cut answer contains the stream's end, but it never
    returns that answer.
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


async def test_a_cancelled_stream_ends_with_that_event(host: Host) -> None:
    gate = f"durable-cancel-{host.name}"
    where = await host.start(["a", "b"], gate=gate, gate_at=1)
    async with talking("durable.mjs", base(host) + at(where), "sse") as talk:
        await talk.until(lambda said: deltas(said) == ["a"])
        assert (await host.http.delete(where)).status_code == 200
        said = await talk.end()
    host.model.open_gate(gate)
    assert types(said)[-1] == "cancelled"
    assert said[-1]["ended"] is True
    assert not errors(said)


async def test_a_failed_stream_ends_with_that_event(host: Host) -> None:
    where = await host.start([], status=400)
    said = await node("durable.mjs", base(host) + at(where), "long-poll")
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
