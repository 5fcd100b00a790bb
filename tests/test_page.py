"""The page in a real browser: a person asks, the answer grows, and what is cut or killed costs nothing."""

from __future__ import annotations

import json
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from gateway import protocol
from gateway.protocol import Event, EventType, sse
from gateway.store.log import Log
from tests.callers import ALICE, by_key, keys_file
from tests.hosts import Wire, triples
from tests.support.model_server import ModelServer, script
from tests.support.person import Person, browser, visit
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

LEASE_SECONDS = 2
NOT_REACHED = "net::ERR_"
SAME = "Compared with the gateway's record: the text is the same."
HOSTILE = (
    'See <script>alert(1)</script> <img src="x" onerror="alert(2)"> '
    "![p](https://elsewhere.example/p.png?q=1) "
    '[click](javascript:alert(3)) [data](data:text/html,x) <a href="https://x.example" onclick="alert(4)">'
    "\n\n<iframe srcdoc='<script>alert(5)</script>'></iframe>\n\n**bold** [good](https://good.example/)"
)


@fixture
async def driver() -> AsyncIterator[Process]:
    async with browser() as process:
        yield process


@fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as started:
        yield started


@fixture
async def environment(model: ModelServer) -> AsyncIterator[dict[str, str]]:
    """Of gateways with a store of their own and the scripted model."""
    async with RedisServer() as server:
        yield {"REDIS_URL": server.url, **model.environment()}


@fixture
async def url(environment: dict[str, str]) -> AsyncIterator[str]:
    lease = {"GATEWAY_LEASE_SECONDS": str(LEASE_SECONDS)}
    async with GatewayProcess("all", environment | lease) as gateway:
        yield gateway.url


@pytest_asyncio.fixture(loop_scope="module")
async def person(driver: Process, url: str) -> AsyncIterator[Person]:
    async with visit(driver, url) as somebody:
        yield somebody


@pytest_asyncio.fixture(loop_scope="module")
async def redis(environment: dict[str, str]) -> AsyncIterator[Redis]:
    """A client of the tests' own, to look behind."""
    client = Redis.from_url(environment["REDIS_URL"])
    yield client
    await client.aclose()


async def test_a_cut_in_the_middle_costs_nothing_and_a_reload_and_a_second_tab_keep_the_answer(
    model: ModelServer, person: Person
) -> None:
    chunks = ["What ", "holds ", "<b>fast</b> ", "is ", "not lost: ", "é 🙂."]
    await person.does("ask", script(chunks, gate="middle", gate_at=2))
    await person.sees("answer", "What holds")
    await person.sees("state", "Answering")

    await person.does("offline")
    await person.sees("state", "Connection cut, coming back")
    model.open_gate("middle")
    document = await person.until_ended()
    assert document["text"] == "".join(chunks)
    assert await person.does("read", "answer") == "What holds"

    await person.does("online")
    await person.sees("answer", "".join(chunks) + "")
    await person.sees("state", "Done")
    for told in (
        "The first word came after ",
        "It came in 10 events; none came twice, none is missing.You cut the connection once.",
        "The connection was lost and came back once behind event ",
        "The model read 7 tokens and wrote 6.",
        SAME,
    ):
        await person.sees("trail", told, part=True)

    for again in ("reload", "tab"):
        await person.does(again)
        await person.sees("answer", "".join(chunks) + "")
        await person.sees("asked", script(chunks, gate="middle", gate_at=2))
        await person.sees("trail", SAME, part=True)
        assert "came back" not in await person.does("read", "trail")
    person.may_complain = NOT_REACHED


async def test_the_cut_button_alone_and_a_second_reader_see_the_same(
    model: ModelServer, person: Person
) -> None:
    await person.does("ask", script(["one ", "two ", "three"], gate="two readers", gate_at=1))
    await person.sees("answer", "one")
    await person.does("press", "Open a second device")
    await person.does("until", "document.querySelector('.second-said')?.textContent.trim() === 'one'")
    await person.does("press", "Cut this one")
    await person.does("press", "Cut the connection")
    await person.sees("trail", "came back once behind event ", part=True)
    await person.sees("second-trail", "came back once, behind event ", part=True)
    model.open_gate("two readers")
    await person.sees("answer", "one two three")
    await person.sees("second-state", "Done")
    await person.sees("second-trail", "7 events, none twice", part=True)
    await person.sees("second-trail", "Byte for byte what the first device has.", part=True)


async def test_a_killed_worker_is_told_and_another_goes_on(model: ModelServer, person: Person) -> None:
    cut_before, asked_before = model.cut_answers, len(model.requests)
    await person.does("ask", script(["before ", "after"], gate="killed", gate_at=1))
    await person.sees("answer", "before")
    await person.does("press", "Kill the worker")
    await person.sees("state", "The worker is dead")
    await person.does("until", COUNTS.replace("MOST", str(LEASE_SECONDS)))
    await model.until(cut=cut_before + 1, requests=asked_before + 2)
    model.open_gate("killed")
    await person.sees("answer", "before after")
    await person.sees("trail", "It came in 6 events; none came twice", part=True)
    await person.sees(
        "trail", "It took 2 attempts: another worker went on where the one before had stopped.", part=True
    )
    await person.sees("trail", SAME, part=True)


# The bar says within how many seconds another worker takes over, or that it may do so now.
COUNTS = """
    [...document.querySelector('#losing .countdown').textContent.matchAll(/within ([0-9]+) s|(any moment)/g)]
        .some(([, seconds, now]) => now || (Number(seconds) >= 1 && Number(seconds) <= MOST))
"""


async def test_who_asks_a_rotation_a_quota_and_the_browsers_own_event_source(
    driver: Process, model: ModelServer, environment: dict[str, str], redis: Redis, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(keys_file((ALICE, "alice")))
    strict = {
        "GATEWAY_AUTH": "keys",
        "GATEWAY_KEYS_FILE": str(tmp_path / "keys"),
        "GATEWAY_TOKEN_KEYS": "of-stream-tokens-" + "x" * 32,
        "GATEWAY_MAX_OWNER_STREAMS": "1",
        "GATEWAY_STREAM_MAX_AGE_SECONDS": "1",
    }
    async with GatewayProcess("all", environment | strict) as gateway, visit(driver, gateway.url) as person:
        person.may_complain = "401"
        question = script(["one ", "two"], gate="rotated", gate_at=1)
        await person.does("until", "document.querySelector('#door').open")
        await person.does("press", "Not now")
        await person.does("ask", question)
        await person.does("until", "document.querySelector('#door').open")
        await person.does("type", "API key", ALICE)
        await person.does("until", TAKEN_IN.replace("QUESTION", json.dumps(question)))
        await person.does("press", "Send")
        await person.sees("answer", "one")
        await person.sees("trail", "came back ", part=True)  # the server has closed it
        stream_id = await person.stream_id()

        async with httpx.AsyncClient(base_url=gateway.url, headers=by_key(ALICE)) as alice:
            shared = (await alice.post(f"/stream/{stream_id}/token")).json()["stream"]
        await person.does("run", OWN_EVENT_SOURCE.replace("WHERE", shared))
        await person.does("until", "opened > 1")
        await person.does("offline")
        await person.does("ask", script(["too much"]))
        await person.does("online")
        await person.sees("note", "That was a lot in a short time.", part=True)
        person.may_complain = ""

        model.open_gate("rotated")
        await person.does("until", "stopped")
        seen = [tuple(event) for event in await person.does("run", "seen")]
        log = await redis.get(Log.keys(stream_id)[1])
        assert isinstance(log, bytes)
        assert seen == triples(Wire(log))
        complaints = await person.does("complaints")
        assert all(NOT_REACHED in text or "401" in text or "429" in text for text in complaints), complaints
        person.may_complain = "Failed to load resource"


# The page that was loaded anew with the key, and has kept the question.
TAKEN_IN = (
    "document.querySelector('#door')?.open === false && document.querySelector('#box').value === QUESTION"
)

# Chromium's own EventSource, which comes back by itself until a 204 has stopped it.
OWN_EVENT_SOURCE = """
    [window.seen, window.opened, window.stopped] = [[], 0, false];
    const source = new EventSource("WHERE");
    source.onopen = () => opened++;
    source.onerror = () => { stopped = source.readyState === EventSource.CLOSED; };
    for (const kind of ["message", "start", "stage", "done", "failed", "cancelled", "reset"]) {
        source.addEventListener(kind, (event) => seen.push([event.lastEventId, kind, event.data]));
    }
"""


async def test_nobody_who_is_not_at_work_is_killed(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        for body, killed in (({"id": "nobody"}, False), ({"id": "x\ny"}, False)):
            answer = await client.post("/dev/kill-worker", json=body)
            assert answer.json() == {"killed": killed, "lease_seconds": LEASE_SECONDS}
        for wrong in ("{}", '{"id": 1}', "[]"):
            headers = {"content-type": "application/json"}
            assert (await client.post("/dev/kill-worker", content=wrong, headers=headers)).status_code == 422
        assert (await client.post("/dev/kill-worker", content="{}")).status_code == 415


async def test_a_conversation_is_sent_whole_and_shown_again(model: ModelServer, person: Person) -> None:
    first, second = script(["Ada."]), script(["Still ", "Ada."])
    await person.does("ask", first)
    await person.sees("state", "Done")
    await person.does("ask", second)
    await person.sees("answer", "Still Ada.")
    assert model.requests[-1]["messages"] == [
        {"role": "user", "content": first},
        {"role": "assistant", "content": "Ada."},
        {"role": "user", "content": second},
    ]
    await person.does("reload")
    await person.does("until", "document.querySelectorAll('.turn').length === 2")
    await person.does(
        "until",
        "[...document.querySelectorAll('.answer')].map(a => a.innerText.trim()).join() === 'Ada.,Still Ada.'",
    )
    await person.does("back")
    await person.does("until", "document.querySelectorAll('.turn').length === 1")
    await person.sees("answer", "Ada.")
    await person.does("press", "New conversation")
    assert await person.does("count", ".turn") == 0


async def test_a_model_that_fails_is_told_kindly_and_may_be_asked_again(
    model: ModelServer, person: Person
) -> None:
    await person.does("ask", script([], status=400))
    await person.sees("note", "Sorry, this answer did not come to its end. The model", part=True)
    await person.sees("state", "Failed")
    assert await person.does("shown", "again")  # the cause may be mended meanwhile
    await person.does("ask", script(["kept", "x"], cut_at=1))
    await person.sees("note", "Asking again may help.", part=True)
    await person.sees("answer", "kept")
    asked = len(model.requests)
    await person.does("press", "Ask again")
    await model.until(requests=asked + 1)


async def test_stop_stops_the_model_and_keeps_what_was_said(model: ModelServer, person: Person) -> None:
    cut_before = model.cut_answers
    await person.does("ask", script(["said ", "never"], gate="never", gate_at=1))
    await person.sees("answer", "said")
    await person.does("press", "Stop")
    await person.sees("state", "Stopped")
    await person.sees("answer", "said")
    await model.until(cut=cut_before + 1)


async def test_markdown_is_shown_and_what_a_model_may_smuggle_in_is_not(person: Person) -> None:
    await person.does("ask", script([HOSTILE]))
    await person.sees("state", "Done")
    tags = await person.does("run", "[...document.querySelectorAll('.answer *')].map(n => n.tagName).sort()")
    assert set(tags) <= {"P", "STRONG", "A", "BR"}
    links = await person.does(
        "run",
        "[...document.querySelectorAll('.answer a')]"
        ".map(a => [a.textContent, a.getAttribute('href'), a.rel])",
    )
    safe = "noopener noreferrer nofollow"
    assert ["good", "https://good.example/", safe] in links
    assert {href for _, href, _ in links if href} == {
        "https://good.example/",
        "https://elsewhere.example/p.png?q=1",
    }
    assert '<img src="x" onerror="alert(2)">' in await person.does("read", "answer")  # as text
    await person.does("press", "Copy")
    assert await person.does("run", "navigator.clipboard.readText()") == HOSTILE


async def test_fault_64_an_answer_that_is_nested_thousands_of_times_is_shown(person: Person) -> None:
    for said in (">" * 20_000 + " deep", "> " * 3000 + "deep"):
        await person.does("ask", script([said]))
        await person.sees("state", "Done")
        await person.sees("answer", "deep", part=True)


async def cut_off_from_an_ended_answer(model: ModelServer, person: Person, gate: str) -> str:
    """The key of the log of a stream that has ended, of which the cut page shows `old ` only."""
    await person.does("ask", script(["old ", "text"], gate=gate, gate_at=1))
    await person.sees("answer", "old")
    await person.does("offline")
    model.open_gate(gate)
    await person.until_ended()
    person.may_complain = NOT_REACHED
    return Log.keys(await person.stream_id())[1]


async def rewritten_meanwhile(
    model: ModelServer, person: Person, redis: Redis, question: str, log: Callable[[str], bytes]
) -> None:
    """The person comes back from being cut off, and the log is another; `log` makes it of the stream's id."""
    key = await cut_off_from_an_ended_answer(model, person, question)
    await redis.set(key, log(await person.stream_id()), keepttl=True)
    await person.does("online")


async def test_fault_08_a_lost_log_and_a_void_attempt_leave_no_wrong_word(
    model: ModelServer, person: Person, redis: Redis
) -> None:
    await rewritten_meanwhile(model, person, redis, "before the loss", rewritten)
    await person.sees("answer", "right")
    await person.sees("state", "Done")
    await person.sees("trail", "The gateway's store had lost a part of it, so all was sent again.", part=True)
    await person.sees("trail", SAME, part=True)


async def test_fault_30_an_answer_past_its_retention_is_told_and_what_was_shown_stays(
    model: ModelServer, person: Person, redis: Redis
) -> None:
    await redis.delete(await cut_off_from_an_ended_answer(model, person, "before the end of its time"))
    person.may_complain = ""
    before = len(await person.does("complaints"))
    await person.does("online")
    await person.sees("state", "Not followed")
    await person.sees("cause", "The stream is past its retention.")
    await person.sees("answer", "old")
    complaints = await person.does("complaints")
    assert all(NOT_REACHED in text or "410" in text for text in complaints[before:])
    person.may_complain = "Failed to load resource"  # the browser's own line for each refused request


async def test_what_a_chain_has_come_to_is_shown_where_it_says_no_text(
    model: ModelServer, person: Person, redis: Redis
) -> None:
    await rewritten_meanwhile(model, person, redis, "before the figures", figures)
    await person.sees("answer", '"total": 42', part=True)


async def test_stages_tools_sources_and_reasoning_have_their_place(
    model: ModelServer, person: Person, redis: Redis
) -> None:
    await rewritten_meanwhile(model, person, redis, "before the long chain", long_chain)
    await person.sees("answer", "It is 20, says the manual.")
    steps = "[...document.querySelectorAll('.stages li')].map(n => [n.className, n.textContent])"
    assert await person.does("run", steps) == [
        ["finished", "outline, finished"],
        ["finished", "agent, finished"],
        ["finished node", "model, finished"],
        ["finished node", "model 2, finished"],
    ]
    texts = "[...document.querySelectorAll('.said > section')].map(n => n.innerText.replace(/\\s+/g, ' '))"
    assert await person.does("run", texts) == [
        "outline First think, then count.",
        "model 2 It is 20, says the manual.",
    ]
    assert await person.does("shown", "reasoning")
    await person.sees("reasoning", "ReasoningLet me count.")
    await person.sees("tools", "calculator", part=True)
    tools = await person.does("run", "document.querySelector('.tools').innerText")
    assert ("finished" in tools, "void" in tools) == (True, False)
    await person.sees("sources", "2 sources", part=True)
    await person.sees("sources", "The manual", part=True)
    href = "document.querySelector('.sources a').getAttribute('href')"
    assert await person.does("run", href) == "https://docs.example/manual"
    await person.does("click", ".sources > summary")
    await person.does("click", ".sources li:last-child summary")  # one that is no page shows its text
    assert "About <b>twenty</b>." in await person.does("run", "document.querySelector('.sources').innerText")


async def test_by_keyboard_on_a_phone_and_in_the_dark(driver: Process, url: str) -> None:
    async with visit(driver, url, 375, "dark") as person:
        await person.does("until", "document.activeElement.id === 'box'")
        await person.does(
            "ask", script(["wide " * 40 + "\n\n|a|b|\n|-|-|\n|" + "x" * 90 + "|y|\n\n`" + "z" * 120 + "`"])
        )
        await person.sees("state", "Done")
        assert await person.does("run", "document.documentElement.scrollWidth") <= 375
        names = []
        for _ in range(20):
            await person.does("keys", "Tab")
            names.append(await person.does("focused"))
        assert {"Table", "Copy", "Regenerate", "How it arrived", "Your question"} <= set(names)
        small = (
            "[...document.querySelectorAll('button')].filter(b => b.checkVisibility())"
            ".filter(b => b.getBoundingClientRect().height < 32).length"
        )
        assert await person.does("run", small) == 0
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = await person.does("run", ground)
        await person.does("press", "Show the conversations")
        await person.does("press", "Theme: system")
        assert await person.does("run", ground) != dark
        await person.does("reload")
        await person.does("press", "Show the conversations")
        await person.does("press", "Theme: light")
        assert await person.does("run", ground) == dark
        told = await person.does(
            "run",
            "['.answer', '.state', '#refused', '#turns'].map(s => document.querySelector(s))"
            ".map(n => ['aria-live', 'role', 'aria-label'].map(a => n.getAttribute(a)).find(Boolean))",
        )
        assert told == ["polite", "status", "alert", "Conversation"]


async def test_the_chains_to_choose_from_are_the_gateways(person: Person) -> None:
    async with httpx.AsyncClient(base_url=person.url) as client:
        answer = await client.get("/chains")
    if answer.status_code == 404:
        assert await person.does("count", "#chains:not([hidden])") == 0
        return
    named = {chain["name"] for chain in answer.json()["chains"]}
    await person.does("until", f"document.querySelectorAll('#chain option').length === {len(named)}")
    assert (
        set(await person.does("run", "[...document.querySelectorAll('#chain option')].map(o => o.value)"))
        == named
    )
    assert await person.does("run", "document.querySelector('#chain').value") == "chat"


def log_of(*events: Event) -> bytes:
    """A log as another history would have left it: other ids."""
    log = b""
    for event in events:
        if "discard_after" in event.data:  # of that name, the stage's started event
            found = sse.split_frames(log)[event.data["discard_after"]].split(b"\n")[0]
            event = Event(event.type, event.data | {"discard_after": found.removeprefix(b"id: ").decode()})
        log += sse.encode(event, len(log), "beef")
    return log


def said(delta: str, stage: str) -> Event:
    return protocol.text(delta, deployment="scripted", stage=stage)


def rewritten(stream_id: str) -> bytes:
    """A second attempt that differed."""
    return log_of(
        protocol.start(stream_id, "chat", ["chat"], "2026-01-01T00:00:00.000Z"),
        protocol.stage("chat", run=1, index=0, count=1),
        said("wrong ", "chat"),
        Event(
            EventType.RESET, {"attempt": 2, "stage": "chat", "discard_after": 1, "reason": "attempt_differs"}
        ),
        said("right", "chat"),
        protocol.stage("chat", run=1, index=0, count=1, finished=True),
        protocol.done(finish_reason="stop", usage={}, attempts=2, duration_ms=1),
    )


def figures(stream_id: str) -> bytes:
    """A chain that has an object to give, and no text."""
    return log_of(
        protocol.start(stream_id, "figures", ["figures"], "2026-01-01T00:00:00.000Z"),
        protocol.stage("figures", run=1, index=0, count=1),
        Event(EventType.CUSTOM, {"name": "result", "stage": "figures", "data": {"total": 42}}),
        protocol.stage("figures", run=1, index=0, count=1, finished=True),
        protocol.done(finish_reason="stop", usage={}, attempts=1, duration_ms=1),
    )


def long_chain(stream_id: str) -> bytes:
    """A chain of two stages, of which the second is an agent whose first attempt is void."""

    def node(run: int, state: str) -> Event:
        place = {"index": 0, "count": 1, "parent": "agent", "step": run}
        return Event(EventType.STAGE, {"name": "model", "run": run, "state": state, **place})

    def tool(call_id: str, state: str, **more: object) -> Event:
        return Event(
            EventType.TOOL,
            {"name": "calculator", "call_id": call_id, "stage": "model", "state": state, **more},
        )

    def custom(name: str, data: object) -> Event:
        return Event(EventType.CUSTOM, {"name": name, "stage": "model", "data": data})

    documents = [
        {"id": "1", "title": "The manual", "source": "https://docs.example/manual", "text": "Twenty."},
        {"id": "2", "title": "notes.md", "source": "notes.md", "text": "About <b>twenty</b>."},
    ]
    return log_of(
        protocol.start(stream_id, "report", ["outline", "agent"], "2026-01-01T00:00:00.000Z"),
        protocol.stage("outline", run=1, index=0, count=2),
        said("First think, ", "outline"),
        said("then count.", "outline"),
        protocol.stage("outline", run=1, index=0, count=2, finished=True),
        protocol.stage("agent", run=1, index=1, count=2),
        node(1, "started"),
        tool("void", "started", input={"expression": "void"}),
        Event(
            EventType.RESET, {"attempt": 2, "stage": "agent", "discard_after": 5, "reason": "attempt_differs"}
        ),
        node(1, "started"),
        custom("reasoning", {"delta": "Let me "}),
        custom("reasoning", {"delta": "count."}),
        tool("c", "started", input={"expression": "(2 + 3) * 4"}),
        tool("c", "finished", output="20"),
        custom("sources", {"documents": documents}),
        node(1, "finished"),
        node(2, "started"),
        said("It is **20**, says the manual.", "model"),
        node(2, "finished"),
        protocol.stage("agent", run=1, index=1, count=2, finished=True),
        protocol.done(finish_reason="stop", usage={}, attempts=2, duration_ms=1),
    )


async def test_the_openapi_document_can_be_read_by_a_person(driver: Process, url: str) -> None:
    async with visit(driver, f"{url}/docs") as person:
        await person.does("until", "document.querySelectorAll('#operations details').length > 20")
        await person.does(
            "run", "document.querySelector('#operations details:nth-of-type(2) summary').click()"
        )
        await person.does("until", "document.querySelector('details[open] dl dt') !== null")
        names = "[...document.querySelectorAll('#operations code')].map((one) => one.textContent)"
        assert {"POST /stream", "GET /stream/{id}"} <= set(await person.does("run", names))
        await person.does("run", "document.querySelector('#schemas summary').click()")
        await person.does("until", "document.querySelector('#schemas pre')?.textContent.startsWith('{')")
        assert await person.does("axe") == []
