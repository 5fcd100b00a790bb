"""A failed stream is tried again where it has failed; what is kept is not run again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda, ensure_config
from redis.asyncio import Redis

from gateway import protocol
from gateway.cli import commands
from gateway.protocol import sse
from gateway.protocol.errors import (
    ChainChanged,
    HoldfastError,
    Invalid,
    KeyReused,
    NotFailed,
    StreamGone,
    StreamNotFound,
    StreamRunning,
    TooLarge,
)
from gateway.store.log import Log
from gateway.store.quota import Quota
from gateway.streams.params import KEY
from gateway.streams.retrying import Wanted, parse_retry
from gateway.streams.status import document
from tests.support.jobs import Jobs, body
from workers.chains.registry import chain
from workers.stages import Each

ALICE = "key:alice"
IMAGE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}
QUESTION, MORE = {"role": "user", "content": "q"}, {"role": "user", "content": "more"}


class Trip:
    """Plan, then a text for each day, then the whole; `broken` names the run that fails."""

    def __init__(self, name: str) -> None:
        self.name, self.broken = name, "day b"
        self.ran: list[str] = []
        self.keys: dict[str, list[str]] = {}
        chain(name, stages=("plan", "days", "text"), tries=1)(lambda _: self.parts())

    def parts(self) -> dict[str, Any]:
        def does(what: str, answer: str) -> str:
            self.ran.append(what)
            self.keys.setdefault(what, []).append(ensure_config()["configurable"][KEY])
            if what == self.broken:
                raise ValueError(what)
            return answer

        return {
            "plan": RunnableLambda(lambda given: does("plan", f"a b c {given['input']}")),
            "days": Each(
                RunnableLambda(lambda given: does(f"day {given['item']}", given["item"].upper())),
                over=lambda given: given["plan"].split()[:3],
            ),
            "text": RunnableLambda(lambda given: does("text", " ".join([given["plan"], *given["days"]]))),
        }


@pytest.fixture
def trip() -> Trip:
    return Trip("trip-again")


@pytest.fixture
async def jobs(redis_url: str, trip: Trip) -> AsyncIterator[Jobs]:
    async with Jobs(redis_url) as made:
        yield made


async def failed(jobs: Jobs, trip: Trip, given: Any = "q", **start: Any) -> str:
    from gateway.streams.start import Start

    made = await jobs.gateway.create(
        Start(trip.name, {"input": given}, {"tone": "dry"}, **start), owner=ALICE
    )
    await jobs.runner.run(body(made.id))
    assert (await jobs.fold(made.id)).ended == "failed"
    trip.broken = ""
    trip.ran.clear()
    return made.id


async def failed_anew(jobs: Jobs, trip: Trip) -> str:
    trip.broken = "day b"
    return await failed(jobs, trip)


async def again(jobs: Jobs, stream_id: str, start: str = "", **given: Any) -> str:
    wanted = Wanted(start, given.pop("params", {}), given.pop("patch", None))
    return (await jobs.gateway.retry(stream_id, wanted, owner=ALICE, **given)).id


async def test_what_had_finished_is_kept_runs_of_an_each_too(jobs: Jobs, trip: Trip) -> None:
    first = await failed(jobs, trip, metadata={"n": 1})
    second = await again(jobs, first)
    await jobs.runner.run(body(second))
    assert trip.ran == ["day b", "day c", "text"]
    fold = await jobs.fold(second)
    assert (fold.ended, fold.text) == ("done", "a b c q A B C")
    assert [(stage.name, stage.run) for stage in fold.stages] == [("days", 2), ("days", 3), ("text", 1)]
    start, *_ = [message.event().data for message in await jobs.messages(second)]
    assert (start["id"], start["retries"], start["from"]) == (second, first, "days")
    record = await jobs.record(second)
    told = document(record, fold)
    assert (told["retries"], told["metadata"]) == (first, {"n": 1})
    assert record.input is None


@pytest.mark.parametrize(
    ("start", "ran"),
    [
        ("plan", ["plan", "day a", "day b", "day c", "text"]),
        ("days", ["day a", "day b", "day c", "text"]),
        ("the event of day b", ["day b", "day c", "text"]),
        ("the event of day a", ["day a", "day b", "day c", "text"]),
    ],
)
async def test_from_an_earlier_stage_or_the_event_with_which_one_began(
    jobs: Jobs, trip: Trip, start: str, ran: list[str]
) -> None:
    first = await failed(jobs, trip)
    runs = {
        message.event().data["run"]: message.id
        for message in await jobs.messages(first)
        if message.type == "stage" and message.event().data["name"] == "days"
        if message.event().data["state"] == "started"
    }
    asked = {"the event of day a": runs[1], "the event of day b": runs[2]}.get(start, start)
    await jobs.runner.run(body(await again(jobs, first, asked)))
    assert trip.ran == ran


async def test_params_are_set_anew_beside_the_others_and_reach_the_chain(jobs: Jobs, trip: Trip) -> None:
    first = await failed(jobs, trip)
    second = await again(jobs, first, params={"words": 5})
    assert (await jobs.record(second)).params == {"tone": "dry", "words": 5}


async def test_the_input_is_patched_for_what_runs_anew_alone(jobs: Jobs, trip: Trip) -> None:
    first = await failed(jobs, trip, {"topic": "rain", "tone": {"dry": True, "long": 1}})
    second = await again(jobs, first, patch={"topic": "sun", "tone": {"long": None, "kind": "x"}}, key="k")
    patched = {"topic": "sun", "tone": {"dry": True, "kind": "x"}}
    assert (await jobs.record(second)).input == {"input": patched}
    await jobs.runner.run(body(second))
    assert trip.ran == ["day b", "day c", "text"]  # the plan was made of the input before, and stands
    assert (await jobs.fold(second)).ended == "done"
    with pytest.raises(KeyReused):
        await again(jobs, first, patch={"topic": "snow"}, key="k")


@pytest.mark.parametrize(
    ("given", "patch", "made"),
    [
        ({"input": "a"}, "b", {"input": "b"}),
        ({"input": {"a": 1}}, [2], {"input": [2]}),
        ({"input": "a"}, {"b": 1, "c": None}, {"input": {"b": 1}}),
        ({"messages": [QUESTION]}, {"messages": [MORE]}, {"messages": [MORE]}),
        ({"messages": [QUESTION]}, {"messages": None}, None),
        ({"messages": [QUESTION]}, {"other": 1}, None),
        ({"messages": [QUESTION]}, [MORE], None),
        ({"messages": [QUESTION]}, {"messages": [{"role": "nobody", "content": "q"}]}, None),
        ({"input": {}}, {"messages": [{"role": "user", "content": [IMAGE]}]}, None),
    ],
)
async def test_a_patch_leaves_an_input_or_is_refused(
    jobs: Jobs, trip: Trip, given: Any, patch: Any, made: Any
) -> None:
    first = await failed(jobs, trip)
    await jobs.connection.call("HSET", Log.kept_key(first), "input", json.dumps(given))
    if made is not None:
        assert (await jobs.record(await again(jobs, first, patch=patch))).input == made
        return
    with pytest.raises(Invalid) as told:
        await again(jobs, first, patch=patch)
    assert told.value.extensions["field"] == "input_patch"


async def test_a_patched_input_keeps_to_its_bound(jobs: Jobs, trip: Trip) -> None:
    half = "x" * (jobs.settings.max_body // 2)
    first = await failed(jobs, trip, {"a": half})
    with pytest.raises(TooLarge):
        await again(jobs, first, patch={"b": half})


async def test_what_goes_on_from_a_thread_takes_no_patch(jobs: Jobs, trip: Trip) -> None:
    first = await failed(jobs, trip, thread="t")
    with pytest.raises(Invalid) as told:
        await again(jobs, first, patch="x")
    assert told.value.extensions["field"] == "input_patch"


async def test_a_retry_may_fail_and_be_tried_again(jobs: Jobs, trip: Trip) -> None:
    second = await again(jobs, await failed(jobs, trip))
    trip.broken = "text"
    await jobs.runner.run(body(second))
    trip.broken, trip.ran = "", []
    third = await again(jobs, second)
    await jobs.runner.run(body(third))
    assert trip.ran == ["text"]
    assert (await jobs.fold(third)).text == "a b c q A B C"


async def test_what_the_failed_stream_has_used_is_told(jobs: Jobs, trip: Trip) -> None:
    first = await failed(jobs, trip)
    kept = Log.kept_key(first)
    lost, used, spent = {"t": 1}, {"": {"t": 2}, "node 1": {"t": 4}}, {"t": 8}
    job = jobs.log.keys(first)[0]
    await jobs.connection.call("HSET", job, "lost", sse.dumps(lost), "used", sse.dumps(used))
    for name, tokens in (("plan 1", 16), ("days 1", 32)):
        raw = json.loads(await jobs.connection.call("HGET", kept, f"ckpt:{name}"))
        whole = sse.dumps({**raw, "usage": {"t": tokens}})
        await jobs.connection.call("HSET", kept, f"ckpt:{name}", whole)
    await jobs.connection.call("HSET", kept, "ckpt: spent days 2", sse.dumps(spent))
    second = await again(jobs, first)
    await jobs.runner.run(body(second))
    fold = await jobs.fold(second)
    assert (fold.usage, fold.usage_lost) == ({"t": 48}, {"t": 15})
    third = await again(jobs, first, "days")
    await jobs.runner.run(body(third))
    fold = await jobs.fold(third)
    assert (fold.usage, fold.usage_lost) == ({"t": 16}, {"t": 47})


async def test_the_same_key_is_the_same_stream_however_many_ask(jobs: Jobs, trip: Trip) -> None:
    first = await failed(jobs, trip)
    made = await asyncio.gather(*(again(jobs, first, key="k") for _ in range(10)))
    assert len(set(made)) == 1
    assert await again(jobs, first, key="other") != made[0]
    trip.broken = "day b"
    second = await failed(jobs, trip)
    for other, start, key in ((first, "plan", "k"), (second, "", "other")):
        with pytest.raises(KeyReused):
            await again(jobs, other, start, key=key)


async def refused(jobs: Jobs, stream_id: str, start: str = "", owner: str = ALICE) -> HoldfastError:
    with pytest.raises(HoldfastError) as told:
        await jobs.gateway.retry(stream_id, Wanted(start), owner=owner)
    return told.value


async def test_what_is_refused(jobs: Jobs, trip: Trip, redis: Redis) -> None:
    first = await failed(jobs, trip)
    assert isinstance(await refused(jobs, first, owner="key:bob"), StreamNotFound)
    assert isinstance(await refused(jobs, protocol.new_stream_id()), StreamNotFound)
    messages = await jobs.messages(first)
    finished = [m.id for m in messages if m.type == "stage" and m.event().data["state"] == "finished"]
    for start in ("nothing", "text", finished[0], messages[0].id, "99-beef", "7", "days\n"):
        error = await refused(jobs, first, start)
        assert isinstance(error, Invalid), start
        assert error.extensions["field"] == "from"
    trip.broken = "day c"
    waiting = await again(jobs, first)
    assert isinstance(await refused(jobs, waiting), StreamRunning)
    await jobs.gateway.cancel(waiting, ALICE)
    assert isinstance(await refused(jobs, waiting), NotFailed)
    trip.broken = ""
    done = await again(jobs, first)
    await jobs.runner.run(body(done))
    assert isinstance(await refused(jobs, done), NotFailed)
    jobs.gateway.chains = {**jobs.gateway.chains, "trip-again": ("plan", "text")}
    assert isinstance(await refused(jobs, first), ChainChanged)
    jobs.gateway.chains = {"chat": ("chat",)}
    assert isinstance(await refused(jobs, first), ChainChanged)
    await redis.delete(Log.kept_key(first))
    jobs.gateway.chains = {"trip-again": ("plan", "days", "text")}
    assert isinstance(await refused(jobs, first), StreamGone)
    await redis.delete(jobs.log.keys(first)[1])
    assert isinstance(await refused(jobs, first), StreamGone)


async def test_a_stream_that_nobody_began_is_tried_again_from_its_first_stage(jobs: Jobs, trip: Trip) -> None:
    trip.broken = ""
    waiting = await jobs.stream("q", chain=trip.name)
    await jobs.connection.call("HSET", jobs.log.keys(waiting)[0], "since_ms", 1, "owner", ALICE)
    error = protocol.failed("wait_limit", "…", retryable=True)
    assert (await jobs.log.give_up(waiting, "cafe", error)).word == "over"
    second = await again(jobs, waiting)
    await jobs.runner.run(body(second))
    assert trip.ran == ["plan", "day a", "day b", "day c", "text"]


async def test_a_run_has_the_key_that_it_had_in_the_failed_stream(jobs: Jobs, trip: Trip) -> None:
    first = await failed(jobs, trip)
    trip.broken = "day b"
    second = await again(jobs, first)
    await jobs.runner.run(body(second))
    trip.broken = ""
    await jobs.runner.run(body(await again(jobs, second)))
    assert [len(trip.keys[what]) for what in ("plan", "day a", "day b", "day c")] == [1, 1, 3, 1]
    assert len(set(trip.keys["day b"])) == 1
    assert len({key for keys in trip.keys.values() for key in keys}) == 5
    other = await failed_anew(jobs, trip)
    assert trip.keys["day b"][-1] != trip.keys["day b"][0], other


async def test_what_is_kept_lasts_as_long_as_the_log_and_counts_in_the_owners_bytes(
    jobs: Jobs, trip: Trip, redis: Redis
) -> None:
    first = await failed(jobs, trip, "x" * 100_000)
    job, log, _ = jobs.log.keys(first)
    kept = Log.kept_key(first)
    assert set(await redis.hkeys(kept)) == {b"input", b"params", b"ckpt:plan 1", b"ckpt:days 1"}
    assert not {b"input", b"params", b"ckpt:plan 1"} & set(await redis.hkeys(job))
    assert 0 <= await redis.pttl(log) - await redis.pttl(kept) < 1000
    await again(jobs, first)  # sees what the first one holds
    held = sum([int(await redis.memory_usage(key, samples=0) or 0) for key in (job, log, kept)])
    assert 0 < int(await redis.get(Quota.keys(ALICE)[3]) or 0) - held < 1000
    assert held > 200_000


@pytest.mark.parametrize("ends", ["done", "cancelled"])
async def test_of_no_other_stream_is_anything_kept(jobs: Jobs, trip: Trip, redis: Redis, ends: str) -> None:
    trip.broken = ""
    made = await jobs.stream("q", chain=trip.name)
    if ends == "done":
        await jobs.runner.run(body(made))
    else:
        await jobs.gateway.cancel(made, "anonymous")
    assert (await jobs.fold(made)).ended == ends
    assert not await redis.exists(Log.kept_key(made))


async def test_of_what_is_not_to_be_stored_nothing_is_kept_and_there_is_no_retry(
    jobs: Jobs, trip: Trip, redis: Redis
) -> None:
    stream_id = await failed(jobs, trip, unstored=True)
    assert not await redis.exists(Log.kept_key(stream_id))
    with pytest.raises(StreamGone):
        await again(jobs, stream_id)


def test_the_body() -> None:
    assert parse_retry({}) == Wanted()
    assert parse_retry({"from": "days", "params": {"a": 1, "thread_id": "x"}}) == Wanted("days", {"a": 1})
    assert parse_retry({"input_patch": {"a": None}}) == Wanted(patch={"a": None})
    wrong: list[Any] = [
        [],
        {"from": 1},
        {"from": ""},
        {"params": []},
        {"form": "days"},
        {"input_patch": None},
    ]
    for value in wrong:
        with pytest.raises(Invalid):
            parse_retry(value)


async def test_the_command_prints_the_new_streams_id(
    jobs: Jobs, trip: Trip, capsys: pytest.CaptureFixture[str]
) -> None:
    from gateway.streams.service import Gateway

    first = await failed(jobs, trip)
    for arguments, code in (([first], 0), ([first, "--from", "plan"], 0), ([protocol.new_stream_id()], 1)):
        given = commands.parser().parse_args(["retry", *arguments])
        mine = Gateway(jobs.settings, jobs.gateway.chains)
        assert await commands.retry(mine, given) == code
        told = capsys.readouterr()
        if code == 0:
            assert (await jobs.record(told.out.strip())).retries == first
        else:
            assert (told.out, told.err) == ("", "There is no such stream.\n")
