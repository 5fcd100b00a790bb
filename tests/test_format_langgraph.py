"""LangGraph runs with LangChain's own SDKs in Python and JavaScript, on both hosts."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import APIStatusError, ConflictError, NotFoundError, UnprocessableEntityError

from gateway.formats.langgraph import state as langgraph_state
from gateway.runtime.json_pieces import size_of
from gateway.settings import Settings
from tests.hosts import Host, until, within
from tests.mortals import Mortal
from tests.support.cutter import Cutter
from tests.support.model_server import script
from tests.support.programs import node, talking
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts", "tests.mortals")
pytestmark = pytest.mark.asyncio(loop_scope="session")

MODES: list[Any] = ["values", "messages-tuple", "updates", "custom"]
WORDS = [f"{number} \u2028\U0001f600 " for number in range(30)]
TEXT = "".join(WORDS)


@asynccontextmanager
async def client_of(url: str, key: str | None = None) -> AsyncIterator[LangGraphClient]:
    async with get_client(url=url, api_key=key) as client:
        yield client


def said(content: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


class Shown:
    """The messages of a run as a front end shows them: chunks add text, `values` replaces messages."""

    def __init__(self) -> None:
        self.messages: dict[str, dict[str, Any]] = {}
        self.events: list[str] = []
        self.ids: list[str] = []
        self.error: Any = None

    def take(self, event: str, data: Any, event_id: str | None) -> None:
        self.events.append(event)
        assert event_id
        self.ids.append(event_id)
        if event == "values":
            self.messages = {one["id"]: one for one in data["messages"]}
        if event == "messages":
            chunk, about = data
            assert about["langgraph_node"]
            known = self.messages.get(chunk["id"], {"content": ""})
            self.messages[chunk["id"]] = chunk | {"content": known["content"] + chunk["content"]}
        if event == "error":
            self.error = data

    @property
    def texts(self) -> list[str]:
        return [one["content"] for one in self.messages.values()]


async def read(parts: Any) -> Shown:
    """Read a run's stream to its end. Check that no event id comes twice."""
    shown = Shown()
    async for part in parts:
        shown.take(part.event, part.data, part.id)
    assert len(set(shown.ids)) == len(shown.ids)
    return shown


def taken(lines: list[dict[str, Any]]) -> Shown:
    """Return the same for the lines that the script in Node printed."""
    shown = Shown()
    for line in lines:
        if "event" in line:
            shown.take(line["event"], line["data"], line["id"])
    assert len(set(shown.ids)) == len(shown.ids)
    return shown


def url_of(host: Host) -> str:
    return str(host.http.base_url).rstrip("/")


async def test_a_thread_remembers_what_was_said(host: Host) -> None:
    question = script(["one", " two"])
    async with client_of(url_of(host)) as client:
        thread: str = (await client.threads.create())["thread_id"]
        state: Any = await client.threads.get_state(thread)
        assert state["values"] == {}
        created: list[Any] = []
        run = client.runs.stream(
            thread, "chat", input=said(question), stream_mode=MODES, on_run_created=created.append
        )
        first = await read(run)
        runs = await client.runs.list(thread)
        assert created == [{"run_id": runs[0]["run_id"], "thread_id": thread}]
        messages = ["messages", "messages"]
        assert first.events == ["metadata", "values", *messages, "updates", "values", "end"]
        assert first.texts == [question, "one two"]
        second = await client.runs.wait(thread, "chat", input=said(script(["three"])))
        assert isinstance(second, dict)
        assert [one["content"] for one in second["messages"]][1::2] == ["one two", "three"]
        state = await client.threads.get_state(thread)
        assert (state["values"], state["next"]) == (second, [])
        runs = await client.runs.list(thread)
        assert [one["status"] for one in runs] == ["success", "success"]
        history: Any = await client.threads.get_history(thread)
        assert [len(one["values"]["messages"]) for one in history] == [4, 2]
        assert history[0]["parent_checkpoint"] == history[1]["checkpoint"]
        assert (await client.threads.get(thread))["status"] == "idle"
        await client.threads.delete(thread)
        assert await client.threads.get_history(thread) == []
    asked = host.model.requests[-1]["messages"]
    assert [(one["role"], one["content"]) for one in asked[:2]] == [
        ("user", question),
        ("assistant", "one two"),
    ]


async def test_an_earlier_run_can_be_gone_on_from(host: Host) -> None:
    async with client_of(url_of(host)) as client:
        thread = str(uuid.uuid4())
        for words in (["first"], ["second"]):
            await client.runs.wait(thread, "chat", input=said(script(words)))
        earlier = (await client.threads.get_history(thread))[1]["checkpoint"]
        state = await client.runs.wait(thread, "chat", input=said(script(["instead"])), checkpoint=earlier)
        assert isinstance(state, dict)
        assert [one["content"] for one in state["messages"]][1::2] == ["first", "instead"]
        wrong: Any = {"checkpoint_id": "00" + "A" * 22}
        with pytest.raises(UnprocessableEntityError):
            await client.runs.create(thread, "chat", input=said("x"), checkpoint=wrong)


async def test_a_run_is_made_joined_and_read_again(host: Host) -> None:
    async with client_of(url_of(host)) as client:
        thread = str(uuid.uuid4())
        run = await client.runs.create(thread, "chat", input=said(script(WORDS)))
        state: Any = await client.runs.join(thread, run["run_id"])
        assert state["messages"][-1]["content"] == TEXT
        assert (await client.runs.get(thread, run["run_id"]))["status"] == "success"
        whole = await read(
            client.runs.join_stream(thread, run["run_id"], stream_mode=MODES, last_event_id="-1")
        )
        assert whole.texts[-1] == TEXT
        for seen in (0, 1, 7, len(whole.ids) - 2):
            rest = await read(
                client.runs.join_stream(
                    thread, run["run_id"], stream_mode=MODES, last_event_id=whole.ids[seen]
                )
            )
            assert rest.ids == whole.ids[seen + 1 :]
        nothing = client.runs.join_stream(thread, run["run_id"], stream_mode=MODES)
        assert (await read(nothing)).events == []
        alone: Any = await client.runs.wait(None, "chat", input={"messages": script(["x"])})
        assert alone["messages"][-1]["content"] == "x"
        only_values = await read(client.runs.stream(None, "chat", input=said(script(["y"]))))
        assert only_values.events == ["metadata", "values", "values", "end"]


async def test_a_reader_from_now_on_gets_what_comes(host: Host) -> None:
    gate = f"langgraph-now-{host.name}"
    question = {"input": said(script(["a", "b"], gate=gate, gate_at=1)), "assistant_id": "chat"}
    run_id = (await host.http.post("/threads/now/runs", json=question)).json()["run_id"]
    await until(lambda: host.status(f"/stream/{run_id}"), lambda status: status["text"] == "a")
    where = f"/threads/now/runs/{run_id}/stream?stream_mode=messages-tuple"
    async with host.http.stream("GET", where) as live:
        assert live.status_code == 200
        host.model.open_gate(gate)
        lines = [line async for line in live.aiter_lines() if line.startswith("event: ")]
    assert lines == ["event: messages", "event: end"]


@pytest.mark.slow
async def test_python_through_cuts_to_the_exact_text(host: Host) -> None:
    before = len(host.model.requests)
    async with Cutter(url_of(host), [1500, 2600, 900]) as cutter, client_of(cutter.url) as client:
        thread = str(uuid.uuid4())
        question = said(script(WORDS, pace=0.005))
        shown = await read(client.runs.stream(thread, "chat", input=question, stream_mode=MODES))
        assert cutter.cuts == 3
    assert shown.texts[-1] == TEXT
    assert shown.events.count("messages") == len(WORDS)
    assert len(host.model.requests) == before + 1


@pytest.mark.slow
async def test_python_waits_through_rotation(mortal: Mortal) -> None:
    async with mortal.worker(), client_of(mortal.rotating_url) as client:
        with pytest.warns(UserWarning, match="attempting reconnect to Location"):
            state: Any = await client.runs.wait(None, "chat", input=said(script(WORDS, pace=0.04)))
    assert state["messages"][-1]["content"] == TEXT


@pytest.mark.slow
async def test_javascript_through_cuts_to_the_exact_text(host: Host) -> None:
    before = len(host.model.requests)
    async with Cutter(url_of(host), [640, 1500, 900, 3000, 1200, 800]) as cutter:
        asked = {"question": script(WORDS, pace=0.005), "thread": str(uuid.uuid4()), "speed": 50}
        lines = await node("langgraph.mjs", cutter.url, "stream", json.dumps(asked))
        assert cutter.cuts == 6
    shown = taken(lines)
    assert shown.texts[-1] == TEXT
    assert shown.events.count("messages") == len(WORDS)
    assert shown.events[-1] == "end"
    assert len(host.model.requests) == before + 1


@pytest.mark.slow
async def test_use_stream_shows_a_conversation_and_comes_back_to_it(host: Host) -> None:
    thread = str(uuid.uuid4())
    first = await node("langgraph.mjs", url_of(host), "use", use(script(["Hi", " there"]), thread))
    assert first[-1] == {"loading": False, "run": None}
    assert texts(first[-2]) == ["Hi there"]
    question = script(WORDS, pace=0.005)
    async with Cutter(url_of(host), [4000, 5000, 3000]) as cutter:
        again = await node("langgraph.mjs", cutter.url, "use", use(question, thread, speed=50))
    assert texts(again[-2]) == ["Hi there", TEXT]
    run = (await host.http.get(f"/threads/{thread}/runs")).json()[0]["run_id"]
    joined = await node("langgraph.mjs", url_of(host), "use", use(question, thread, join=run))
    assert texts(joined[-2]) == ["Hi there", TEXT]


async def test_use_stream_stops_the_run(host: Host) -> None:
    thread, gate = str(uuid.uuid4()), f"never langgraph {host.name}"
    question = script(["some", "more"], gate=gate, gate_at=1)
    async with talking("langgraph.mjs", url_of(host), "use", use(question, thread)) as talk:
        await talk.until(lambda lines: lines and "messages" in lines[-1] and texts(lines[-1]) == ["some"])
        await talk.tell("stop")
        await talk.end()
    await until(
        lambda: host.http.get(f"/threads/{thread}/runs"),
        lambda answer: answer.json()[0]["status"] == "interrupted",
    )


async def test_use_stream_shows_a_failure(host: Host) -> None:
    question = script([], status=400)
    lines = await node("langgraph.mjs", url_of(host), "use", use(question, str(uuid.uuid4())))
    [error] = [line["error"] for line in lines if "error" in line]
    assert "scripted" not in error
    assert error
    assert lines[-1]["loading"] is False


async def test_a_cancelled_run_is_told_to_its_readers(host: Host) -> None:
    question = said(script(["a", "b"], gate=f"never langgraph cancel {host.name}", gate_at=1))
    async with client_of(url_of(host)) as client:
        thread, shown = str(uuid.uuid4()), Shown()
        async for part in client.runs.stream(thread, "chat", input=question, stream_mode=MODES):
            shown.take(part.event, part.data, part.id)
            if part.event == "messages":
                [run] = await client.runs.list(thread)
                assert run["status"] == "running"
                assert (await client.threads.get(thread))["status"] == "busy"
                await client.runs.cancel(thread, run["run_id"])
        assert shown.error == {"error": "UserInterrupt", "message": "The run was cancelled."}
        [run] = await client.runs.list(thread)
        assert run["status"] == "interrupted"
        joined: Any = await client.runs.join(thread, run["run_id"])
        assert joined == {"__error__": shown.error}
        state: Any = await client.threads.get_state(thread)
        assert len(state["values"]["messages"]) == 1  # The question stays, as in LangGraph.
        assert state["next"] == []
        await client.runs.cancel(thread, run["run_id"], wait=True, action="rollback")
        assert await client.threads.get_history(thread) == []


async def test_a_failed_run_says_so_without_a_word_of_the_model(host: Host) -> None:
    async with client_of(url_of(host)) as client:
        thread = str(uuid.uuid4())
        shown = await read(client.runs.stream(thread, "chat", input=said(script([], status=400))))
        assert shown.events[-1] == "error"
        assert shown.error["error"] == "model_invalid_request"
        assert "scripted" not in json.dumps(shown.error)
        assert (await client.threads.get(thread))["status"] == "error"
        state: Any = await client.threads.get_state(thread)
        assert state["tasks"][0]["error"] == shown.error["message"]


async def test_a_busy_thread_takes_no_other_run_but_the_same_again(host: Host) -> None:
    gate = f"langgraph-busy-{host.name}"
    question = said(script(["a", "b"], gate=gate, gate_at=1))
    async with client_of(url_of(host)) as client:
        thread = str(uuid.uuid4())
        run = await client.runs.create(thread, "chat", input=question)
        again = await client.runs.create(thread, "chat", input=question)
        assert again["run_id"] == run["run_id"]
        with pytest.raises(ConflictError):
            await client.runs.create(thread, "chat", input=said("other"))
        other = await client.runs.create(
            thread, "chat", input=said(script(["c"])), multitask_strategy="rollback"
        )
        state: Any = await client.runs.join(thread, other["run_id"])
        assert [one["type"] for one in state["messages"]] == ["human", "ai"]
        first = await client.runs.get(thread, run["run_id"])
        assert first["status"] == "interrupted"
    host.model.open_gate(gate)


async def test_a_post_that_is_refused_ends_nothing(host: Host) -> None:
    gate = f"langgraph-refused-{host.name}"
    question = said(script(["a", "b"], gate=gate, gate_at=1))
    async with client_of(url_of(host)) as client:
        thread = str(uuid.uuid4())
        run = await client.runs.create(thread, "chat", input=question)
        wrong: list[dict[str, Any]] = [
            {"assistant_id": "none", "input": said("x")},
            {"assistant_id": "chat", "input": {"messages": [{"type": "alien", "content": "x"}]}},
            {"assistant_id": "chat", "input": said("x"), "checkpoint": {"checkpoint_id": "none"}},
        ]
        for body in wrong:
            asked = {**body, "multitask_strategy": "interrupt"}
            assert (await host.http.post(f"/threads/{thread}/runs", json=asked)).status_code == 422
        assert (await client.runs.get(thread, run["run_id"]))["status"] in ("pending", "running")
        other = said(script(["c"]))
        second = await client.runs.create(thread, "chat", input=other, multitask_strategy="interrupt")
        assert (await client.runs.get(thread, run["run_id"]))["status"] == "interrupted"
        state: Any = await client.runs.join(thread, second["run_id"])
        assert [one["type"] for one in state["messages"]] == ["human", "human", "ai"]
    host.model.open_gate(gate)


async def test_a_key_is_one_run_of_its_thread_whatever_came_after(host: Host) -> None:
    async def post(thread: str, words: list[str], key: str) -> httpx.Response:
        body = {"assistant_id": "chat", "input": said(script(words))}
        return await host.http.post(
            f"/threads/{thread}/runs/wait", json=body, headers={"idempotency-key": key}
        )

    thread, other = str(uuid.uuid4()), str(uuid.uuid4())
    first = await post(thread, ["one"], "k1")
    second = await post(thread, ["two"], "k2")
    again = await post(thread, ["one"], "k1")
    assert again.headers["x-stream-id"] == first.headers["x-stream-id"]
    assert again.json() == first.json()
    assert (await post(thread, ["three"], "k1")).json()["code"] == "idempotency_key_reused"
    elsewhere = await post(other, ["one"], "k1")
    assert elsewhere.headers["x-stream-id"] != first.headers["x-stream-id"]
    runs = (await host.http.get(f"/threads/{thread}/runs")).json()
    assert [one["run_id"] for one in runs] == [one.headers["x-stream-id"] for one in (second, first)]


async def test_of_starts_at_once_one_has_the_thread_and_nothing_else_runs(host: Host) -> None:
    gate, thread = f"langgraph-at-once-{host.name}", str(uuid.uuid4())

    async def post(words: list[str]) -> httpx.Response:
        body = {"assistant_id": "chat", "input": said(script(words, gate=gate))}
        return await host.http.post(f"/threads/{thread}/runs", json=body)

    before = {kind: set(await host.redis.keys(kind)) for kind in ("*:job:*", "*:conversation")}
    same = await asyncio.gather(*(post(["same"]) for _ in range(6)))
    assert {answer.status_code for answer in same} == {200}
    made = {kind: len(set(await host.redis.keys(kind)) - keys) for kind, keys in before.items()}
    assert made == {"*:job:*": 1, "*:conversation": 1}  # The refused runs leave nothing.
    [run] = {answer.json()["run_id"] for answer in same}
    others = await asyncio.gather(*(post([str(number)]) for number in range(6)))
    assert {answer.status_code for answer in others} == {409}
    assert [one["run_id"] for one in (await host.http.get(f"/threads/{thread}/runs")).json()] == [run]
    host.model.open_gate(gate)
    joined = await host.http.get(f"/threads/{thread}/runs/{run}/join")
    assert joined.json()["messages"][-1]["content"] == "same"
    assert (await host.http.get(f"/threads/other/runs/{run}")).status_code == 404


async def test_a_history_has_a_bound_in_bytes(
    hosts: dict[str, Host], store: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = str(uuid.uuid4())
    async with client_of(url_of(hosts["uvicorn"])) as client:
        for words in (["1"], ["2"], ["3"]):
            await client.runs.wait(thread, "chat", input=said(script(words)))
    async with within(Settings(redis_url=store.url)) as http:
        whole = (await http.post(f"/threads/{thread}/history", json={})).json()
        monkeypatch.setattr(langgraph_state, "_HISTORY_BYTES", size_of(whole[0]) + 1)
        some = (await http.post(f"/threads/{thread}/history", json={})).json()
    assert (len(whole), some) == (3, whole[:2])


async def test_lists_have_pages(host: Host) -> None:
    async with client_of(url_of(host)) as client:
        thread = str(uuid.uuid4())
        for words in (["1"], ["2"], ["3"]):
            await client.runs.wait(thread, "chat", input=said(script(words)))
        ids = [one["run_id"] for one in await client.runs.list(thread)]
        assert [one["run_id"] for one in await client.runs.list(thread, limit=1, offset=1)] == ids[1:2]
        assert await client.runs.list(thread, status="error") == []
        history: Any = await client.threads.get_history(thread, limit=1)
        rest: Any = await client.threads.get_history(thread, before=history[0]["checkpoint"])
        assert [one["checkpoint"]["checkpoint_id"] for one in [*history, *rest]] == ids
    for path, params in (("/runs", {"status": "x"}), ("/runs", {"offset": "-1"})):
        assert (await host.http.get(f"/threads/{thread}{path}", params=params)).status_code == 422
    for name in ("a/b", "..", ".", "", "x" * 201, "a\nb"):
        assert (await host.http.post("/threads", json={"thread_id": name})).status_code == 422
    wrong = await host.http.post(f"/threads/{thread}/runs/{ids[0]}/cancel", params={"action": "x"})
    assert wrong.status_code == 422


@pytest.mark.slow
@pytest.mark.parametrize("again", [None, ["x ", "y ", "z"]])
async def test_a_worker_is_killed_under_python(mortal: Mortal, again: list[str] | None) -> None:
    """The same text also arrives through a host that ends each connection after a moment."""
    gate = f"langgraph-py-{mortal.name}-{again}"
    more = {} if again is None else {"again": again}
    question = script(["a ", "b ", "c"], gate=gate, gate_at=2, **more)
    shown = Shown()
    async with client_of(mortal.url if again else mortal.rotating_url) as client:
        thread = str(uuid.uuid4())
        parts = aiter(client.runs.stream(thread, "chat", input=said(question), stream_mode=MODES))
        async with mortal.worker() as first:
            while shown.texts[-1:] != ["a b "]:
                part = await anext(parts)
                shown.take(part.event, part.data, part.id)
            await first.kill()
        mortal.model.open_gate(gate)
        async with mortal.worker():
            async for part in parts:
                shown.take(part.event, part.data, part.id)
    assert shown.texts == [question, "".join(again or ["a ", "b ", "c"])]
    assert shown.events.count("values") == (2 if again is None else 3)


@pytest.mark.slow
@pytest.mark.parametrize("again", [None, ["x ", "y ", "z"]])
async def test_a_worker_is_killed_under_use_stream(mortal: Mortal, again: list[str] | None) -> None:
    """The host ends each connection after a moment.

    The SDK gives up after five connections without data, some 20 seconds at this speed. The second worker
    starts before the first one dies, so only the lease has to end within that time.
    """
    gate = f"langgraph-js-{mortal.name}-{again}"
    more = {} if again is None else {"again": again}
    question = script(["a ", "b ", "c"], gate=gate, gate_at=2, **more)
    asked = use(question, str(uuid.uuid4()), speed=2)
    async with talking("langgraph.mjs", mortal.rotating_url, "use", asked) as talk, mortal.worker() as first:
        await talk.until(lambda lines: lines and texts(lines[-1]) == ["a b "])
        async with mortal.worker():
            await first.kill()
            mortal.model.open_gate(gate)
            lines = await talk.until(lambda lines: "loading" in lines[-1])
    assert texts(lines[-2]) == ["".join(again or ["a ", "b ", "c"])]
    assert not [line for line in lines if "error" in line]


async def test_a_thread_is_followed_through_its_runs(host: Host) -> None:
    thread = str(uuid.uuid4())
    async with client_of(url_of(host)) as client:
        found: list[str] = []

        async def read_both() -> str:
            async for part in await client.threads.join_stream(thread, stream_mode=["run_modes"]):
                found.extend([part.data["run_id"]] if part.event == "metadata" else [])
                if len(found) == 2:
                    return part.id or ""
            return ""

        reading = asyncio.create_task(read_both())
        for word in ("one", "two"):
            await client.runs.wait(thread, "chat", input=said(script([word])))
        last = await asyncio.wait_for(reading, 60)
        runs = [run["run_id"] for run in await client.runs.list(thread)]
        assert found == runs[::-1]
        async for part in await client.threads.join_stream(thread, last_event_id=last):
            assert part.event == "values"  # After the second run's first frame.
            break


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ([], "body: must be an object"),
        ({}, "assistant_id: must be the name of a chain of this gateway"),
        ({"assistant_id": "none", "input": said("x")}, "assistant_id: must be the name"),
        ({"assistant_id": "chat", "input": said("x"), "stream_mode": "debug"}, "stream_mode: must be of"),
        ({"assistant_id": "chat", "input": said("x"), "stream_mode": [1]}, "stream_mode: must be a string"),
        ({"assistant_id": "chat", "input": said("x"), "command": {"resume": 1}}, "command: may not"),
        (
            {"assistant_id": "chat", "input": said("x"), "multitask_strategy": "later"},
            "multitask_strategy:",
        ),
        ({"assistant_id": "chat", "input": said("x"), "config": {"configurable": 1}}, "config.configurable:"),
        ({"assistant_id": "chat", "input": said("x"), "metadata": [1]}, "metadata: must be an object"),
        ({"assistant_id": "chat", "input": {"messages": [{"type": "x"}]}}, "input.messages[0].type: must be"),
        ({"assistant_id": "chat", "input": {"messages": [{"role": "user"}]}}, "input.messages[0].content:"),
        ({"assistant_id": "chat", "input": {"messages": 1}}, "input.messages[0]: must be a message"),
        ({"assistant_id": "chat", "input": {"messages": []}}, "input"),
        ({"assistant_id": "chat"}, "input"),
        (
            {"assistant_id": "chat", "input": {"messages": [{"role": "user", "content": "x", "id": 7}]}},
            "input.",
        ),
    ],
)
async def test_a_body_that_breaks_a_rule_is_told_which(host: Host, body: Any, detail: str) -> None:
    answer = await host.http.post("/threads/t/runs/stream", json=body)
    told = answer.json()
    assert (answer.status_code, told["code"]) == (422, "invalid")
    assert told["detail"].startswith(detail)


async def test_unknown_runs_and_wrong_cursors(host: Host) -> None:
    where, _ = await host.finished(["a"])
    run_id = where.rpartition("/")[2]
    async with client_of(url_of(host)) as client:
        with pytest.raises(NotFoundError):
            await client.runs.get("t", "00" + "A" * 22)
        # A stream that was started in another way is also a run.
        state: Any = await client.runs.join("t", run_id)
        assert state["messages"][-1]["content"] == "a"
        lost = client.runs.join_stream("t", run_id, stream_mode=MODES, last_event_id="5-beef.0")
        assert (await read(lost)).texts[-1] == "a"
        with pytest.raises(APIStatusError):
            await read(client.runs.join_stream("t", run_id, last_event_id="x"))
    long = "x" * 300
    assert (await host.http.get(f"/threads/{long}/state")).status_code == 422
    assert (await host.http.post("/threads/t/history", json={"limit": "x"})).status_code == 422
    assert (await host.http.post("/threads", json=[])).status_code == 422
    assert (await host.http.post("/threads", json={"thread_id": 1})).status_code == 422


def use(question: str, thread: str, **more: Any) -> str:
    return json.dumps({"question": question, "thread": thread, **more})


def texts(line: dict[str, Any]) -> list[str]:
    """Return the answers that `useStream` shows."""
    return [text for kind, _, text in line.get("messages", ()) if kind == "ai"]


async def test_one_stream_is_read_in_every_format(host: Host) -> None:
    async with client_of(url_of(host)) as client:
        thread = str(uuid.uuid4())
        await client.runs.wait(thread, "chat", input=said(script(["half \ud83d", " a pair"])))
        [run] = await client.runs.list(thread)
    native = await host.status(f"/stream/{run['run_id']}")
    answer = await host.http.get(f"/v1/responses/resp_{run['run_id']}")
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    [message] = [item for item in answer.json()["output"] if item["type"] == "message"]
    assert native["text"] == "half \ud83d a pair"  # Strict parsers refuse it.
    assert message["content"][0]["text"] == "half \ufffd a pair"
    assert "given" not in answer.json()
    goes_on = {"model": "chat", "input": "x", "previous_response_id": f"resp_{run['run_id']}"}
    assert (await host.http.post("/v1/responses", json=goes_on)).status_code in (400, 422)
    made = (await host.http.post("/v1/responses", json={"model": "chat", "input": script(["b"])})).json()
    joined = await host.http.get(f"/threads/any/runs/{made['id'].removeprefix('resp_')}/join")
    assert joined.json()["messages"][-1]["content"] == "b"
