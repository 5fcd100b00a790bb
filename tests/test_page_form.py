"""The page in a real browser: what stays in sight, what can be reached, and what a conversation allows."""

from __future__ import annotations

import json
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.model_server import ModelServer, script
from tests.support.person import Person, browser, visit
from tests.support.processes import GatewayProcess
from tests.support.redis_server import RedisServer

fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

LONG = [f"Paragraph {number}, which says little and is a line or two long.\n\n" for number in range(60)]
PROGRAM = '```python\ndef hold(fast: int) -> str:\n    # a comment\n    return "fast" * 2\n```\n'
RICH = [
    "# One\n\nText with `code` and a [link](https://good.example/).\n\n",
    "| " + " | ".join(f"column{number}" for number in range(9)) + " |\n|" + "-|" * 9 + "\n",
    "| " + " | ".join(["incomprehensibilities"] * 9) + " |\n\n",
    PROGRAM,
    "\n1. one\n2. two\n\n> quoted\n",
]


@fixture
async def driver() -> AsyncIterator[Process]:
    async with browser() as process:
        yield process


@fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer() as started:
        yield started


@fixture
async def url(model: ModelServer) -> AsyncIterator[str]:
    async with (
        RedisServer() as server,
        GatewayProcess("all", {"REDIS_URL": server.url, **model.environment()}) as gateway,
    ):
        yield gateway.url


@pytest_asyncio.fixture(loop_scope="module")
async def person(driver: Process, url: str) -> AsyncIterator[Person]:
    async with visit(driver, url) as somebody:
        yield somebody


async def answered(person: Person, *chunks: str) -> None:
    """Ask, and wait for the end of this answer."""
    await person.does("ask", script(list(chunks)))
    await person.sees("state", "Done")


async def test_what_is_selected_where_one_reads_and_what_has_the_focus_outlive_the_growth(
    model: ModelServer, person: Person
) -> None:
    held = "held where it is"
    chunks = [f"first **{held}**\n\n", *RICH, *LONG[:40], *LONG[40:], "the end"]
    await person.does("ask", script(chunks, gate="growth", gate_at=len(chunks) - 21))
    await person.does("until", "document.querySelector('.answer .code') !== null")
    await person.does("until", "document.querySelector('.answer')?.innerText.includes('Paragraph 39')")
    await person.does("run", SELECT)
    await person.does("run", "document.querySelector('.answer pre').focus({ preventScroll: true })")
    await person.does("run", "scrollTo(0, 100)")
    await person.does("until", "!document.querySelector('#jump').hidden")
    model.open_gate("growth")
    await person.sees("answer", "the end", part=True)
    await person.sees("state", "Done")
    assert await person.does("run", "getSelection().toString()") == held
    assert await person.does("run", "window.kept.isConnected && document.activeElement.tagName") == "PRE"
    assert await person.does("run", "scrollY") == 100
    await person.does("press", "Jump to the end")
    await person.does("until", "document.documentElement.scrollHeight - innerHeight - scrollY < 2")
    await person.does("until", "document.querySelector('#jump').hidden")


SELECT = """{
    window.kept = document.querySelector('.answer strong');
    getSelection().selectAllChildren(window.kept);
}"""


async def test_a_block_that_is_over_is_never_drawn_again(model: ModelServer, person: Person) -> None:
    """Whatever comes behind it: a mark on each node of before is still there at the end."""
    await person.does("ask", script([*RICH, *LONG], gate="marks", gate_at=len(RICH) + 10))
    await person.does("until", "document.querySelector('.answer')?.innerText.includes('Paragraph 9')")
    marked = "[...document.querySelectorAll('.answer > *')].slice(0, -2).map(n => n.marked = true).length"
    count = await person.does("run", marked)
    assert count > 10
    model.open_gate("marks")
    await person.sees("state", "Done")
    assert (
        await person.does("run", "[...document.querySelectorAll('.answer > *')].filter(n => n.marked).length")
        == count
    )


GROWN = """(async () => {
    const { Growing } = await import("./web/growing.js");
    const node = document.createElement("div"), growing = new Growing(node);
    for (let at = STEP; at < TEXT.length; at += STEP) growing.draw(TEXT.slice(0, at), false);
    const drawn = [];
    for (let before = 0, whole = false; !whole; before = node.textContent.length) {
        whole = growing.draw(TEXT, true);
        drawn.push(node.textContent.length - before);
    }
    return { html: node.innerHTML.slice(0, 9999), drawn };
})()"""


async def grown(person: Person, text: str, step: int) -> Any:
    """What the page makes of a text that comes in such pieces, and how much each drawing adds."""
    return await person.does("run", GROWN.replace("TEXT", json.dumps(text)).replace("STEP", str(step)))


async def test_what_grows_comes_to_the_same_as_what_is_there_at_once(person: Person) -> None:
    lists = "- a\n- b\n\n  c\n\n2. x\n3. y\n\n* * *\n\nA line\n=\n\n### Deep\n\n"
    for reference in ("", "End of [it][1].\n\n[1]: https://good.example/\n"):
        text = "".join(RICH) + lists + "~~~js\nlet a = `b\nc`;\n\n  ``\n~~~\n" + reference
        at_once = await grown(person, text, len(text))
        for step in (1, 7):
            assert (await grown(person, text, step))["html"] == at_once["html"], (reference, step)


async def test_a_line_that_is_but_a_sign_yet_waits_for_what_it_will_be(person: Person) -> None:
    held = """(async () => {
        const { Growing } = await import("./web/growing.js");
        const node = document.createElement("div"), growing = new Growing(node);
        return [false, true].map((isWhole) => growing.draw("Text.\\n\\nSIGN", isWhole) && node.textContent);
    })()"""
    for sign in ("### ", "#", "```", "|"):
        first, whole = await person.does("run", held.replace("SIGN", sign))
        assert first == "Text.", sign
        assert whole != first or sign.startswith("#"), sign  # an empty heading has nothing to be seen


LENGTHS = {
    "table": "| a | b |\n|-|-|\n" + "| a cell | and another |\n" * 4000,
    "list": "- one of many items\n" * 5000,
    "code": "```py\n" + "x = 1  # one\n" * 8000 + "```\n",
    "lines": "A line of many.\n" * 6000,
    "paragraphs": "One.\n\n" * 15_000,
}


async def test_one_drawing_of_a_long_answer_takes_up_a_part_of_it(person: Person) -> None:
    """A hundred thousand characters that are read again from their beginning do not hold the page up."""
    for name, text in LENGTHS.items():
        drawn = (await grown(person, text, len(text)))["drawn"]
        assert sum(drawn) >= 60_000, name
        assert max(drawn) < 10_000, name


async def test_a_table_scrolls_and_code_has_its_language_its_colours_and_a_copy(person: Person) -> None:
    await answered(person, *RICH)
    table = "document.querySelector('.table')"
    assert await person.does("run", f"{table}.scrollWidth > {table}.clientWidth")
    height = "document.querySelector('.table td').getBoundingClientRect().height"
    assert await person.does("run", height) < 60  # a word is not broken into letters
    assert await person.does("run", "document.documentElement.scrollWidth <= innerWidth")
    assert await person.does("run", "document.querySelector('.code-head span').textContent") == "python"
    colours = "['key', 'fn', 'com', 'str', 'num'].map(n => document.querySelector(`.t-${n}`)?.textContent)"
    assert await person.does("run", colours) == ["def", "hold", "# a comment", '"fast"', "2"]
    await person.does("press", "Copy code")
    assert await person.does("run", "navigator.clipboard.readText()") == PROGRAM.split("\n", 1)[1][:-5]
    for frame in (".answer pre", ".table"):  # scrolled by keyboard
        await person.does("run", f"document.querySelector('{frame}').focus()")
        assert await person.does("run", f"document.activeElement.matches('{frame}')")


async def test_each_block_runs_as_its_own_text_does(person: Person) -> None:
    await answered(person, "Left to right.\n\n", "مرحبا بالعالم.\n\n", "- واحد\n- اثنان\n\n", "```\nx\n```\n")
    directions = "[...document.querySelectorAll('.answer > *')].map(n => getComputedStyle(n).direction)"
    assert await person.does("run", directions) == ["ltr", "rtl", "rtl", "ltr"]
    await person.does("fill", "Your question", "ما هذا؟")
    assert await person.does("run", "getComputedStyle(document.querySelector('#box')).direction") == "rtl"


@pytest.mark.parametrize(("width", "height"), [(320, 256), (320, 200)])
async def test_half_of_a_low_window_and_more_is_the_answer(
    driver: Process, url: str, model: ModelServer, width: int, height: int
) -> None:
    async with visit(driver, url, width, "light", height) as person:
        gate = f"low {height}"
        await person.does("ask", script([*LONG, "the end"], gate=gate, gate_at=40))
        await person.does("until", "document.querySelector('.answer')?.innerText.includes('Paragraph 39')")
        await person.does("until", f"{SHARE} >= 0.5")  # while it is written
        model.open_gate(gate)
        await person.sees("state", "Done")
        await person.does("until", f"{SHARE} >= 0.5")
        await person.does("reload")
        await person.sees("answer", "the end", part=True)
        await person.does("until", f"{SHARE} >= 0.5")
        await person.does("run", "scrollTo(0, 300)")
        await person.does("until", f"{SHARE} >= 0.5")


# Of the points of the window in the middle of its width, those at which the answer's text is seen.
SHARE = (
    "[...Array(innerHeight).keys()].filter("
    "y => document.elementFromPoint(innerWidth / 2, y)?.closest('.answer')).length / innerHeight"
)


async def test_the_focus_stays_after_a_cut_and_goes_to_the_answer_where_a_button_goes_away(
    model: ModelServer, person: Person
) -> None:
    await person.does("ask", script(["one ", "two"], gate="focus", gate_at=1))
    await person.sees("answer", "one")
    await person.does("press", "Cut the connection")
    assert await person.does("focused") == "Cut the connection"
    await person.sees("trail", "came back once", part=True)
    assert await person.does("focused") == "Cut the connection"
    model.open_gate("focus")
    await person.sees("state", "Done")
    await person.does("until", "document.querySelector('#losing').hidden")
    assert await person.does("focused") == "Answer"


async def test_stop_stands_in_sends_place(model: ModelServer, person: Person) -> None:
    shown = "['#send', '#stop'].map(n => document.querySelector(n).checkVisibility())"
    assert await person.does("run", shown) == [True, False]
    await person.does("ask", script(["one ", "two"], gate="place", gate_at=1))
    await person.sees("answer", "one")
    assert await person.does("run", shown) == [False, True]
    await person.does("press", "Stop")
    await person.sees("state", "Stopped")
    assert await person.does("run", shown) == [True, False]
    assert await person.does("focused") == "Answer"


async def test_the_box_is_one_row_and_grows_to_a_bound(person: Person) -> None:
    height = "document.querySelector('#box').offsetHeight"
    one = await person.does("run", height)
    assert one < 50
    await person.does("fill", "Your question", "one\ntwo\nthree")
    assert one < await person.does("run", height) < 4 * one
    await person.does("fill", "Your question", "line\n" * 200)
    assert await person.does("run", f"{height} <= innerHeight * 0.35")


async def test_it_comes_back_by_itself_when_the_network_does_and_when_it_is_looked_at(
    model: ModelServer, person: Person
) -> None:
    """Also where the client has given up long since: nobody presses anything."""
    person.may_complain = "net::ERR_"
    await person.does("clock")
    await person.does("reload")
    await person.does("ask", script(["one ", "two ", "three"], gate="back", gate_at=1))
    await person.does("later", 1000)
    await person.sees("answer", "one")
    await person.does("offline")
    for _ in range(12):
        await person.does("later", 15_000)
    await person.sees("state", "Not followed")
    model.open_gate("back")
    await person.until_ended()
    await person.does("online")
    await person.does("later", 1000)
    await person.sees("answer", "one two three")
    await person.sees("state", "Done")


async def test_the_first_words_time_is_that_of_whoever_asked(model: ModelServer, person: Person) -> None:
    await person.does("ask", script(["one ", "two"], gate="first", gate_at=0))
    await person.does("until", "performance.now() > 2500")
    model.open_gate("first")
    await person.sees("state", "Done")
    await person.sees("trail", "The first word came after ", part=True)
    told = (await person.does("read", "trail")).partition(".")[0]
    for again in ("reload", "tab"):
        await person.does(again)
        await person.sees("trail", told, part=True)
    await person.does("run", "localStorage.clear()")
    await person.does("reload")
    await person.sees("trail", "It took ", part=True)  # better nothing than the time of a replay


async def test_the_conversations_stand_in_the_rail_by_their_question_also_after_a_reload(
    model: ModelServer, person: Person
) -> None:
    first, second = script(["Ada."]), script(["Grace."])
    await person.does("ask", first)
    await person.sees("state", "Done")
    await person.does("ask", script(["More."]))
    await person.sees("answer", "More.")
    await person.does("press", "New conversation")
    await person.does("ask", second)
    await person.sees("answer", "Grace.")
    for again in ("", "reload", "tab"):
        if again:
            await person.does(again)
        await person.does("until", f"{TITLES}.slice(0, 2).join('|') === {f'{second}|{first}'!r}")
        current = "document.querySelector('#history [aria-current]').innerText"
        assert second in await person.does("run", current)
    await person.does("click", "#history li:nth-child(2) a")
    await person.does("until", "document.querySelectorAll('.turn').length === 2")
    await person.sees("answer", "More.")
    await person.does("until", "document.querySelector('#history li:nth-child(2) [aria-current]') !== null")
    await person.does("press", "Hide the conversations")
    await person.does("reload")
    assert not await person.does("run", "document.querySelector('#rail').checkVisibility()")


async def test_a_conversation_is_deleted_for_good_once_one_has_said_so(
    model: ModelServer, person: Person
) -> None:
    stays, goes = script(["Hopper."]), script(["Lovelace."])
    await answered(person, "Hopper.")
    await person.does("press", "New conversation")
    for question in (goes, script(["Of 1815."])):
        await person.does("ask", question)
        await person.sees("state", "Done")
    stream_id = await person.stream_id()
    await person.does("until", f"{TITLES}[0] === {goes!r}")
    await person.does("press", f"Delete “{goes}”")
    await person.does("press", "Keep")
    assert await person.does("run", f"{TITLES}[0]") == goes
    await person.does("press", f"Delete “{goes}”")
    assert await person.does("axe") == []
    await person.does("press", "Delete")
    await person.does("until", f"{TITLES}[0] === {stays!r} && location.hash === ''")
    assert await person.does("run", "document.querySelectorAll('.turn').length") == 0
    person.may_complain = "404"
    assert await person.does("run", f"fetch('stream/{stream_id}').then((answer) => answer.status)") == 404
    await person.does("reload")
    await person.does("until", f"{TITLES}[0] === {stays!r}")
    assert goes not in await person.does("run", TITLES)


TITLES = "[...document.querySelectorAll('#history .title')].map(n => n.textContent)"


async def test_on_a_phone_the_rail_is_a_drawer(driver: Process, url: str) -> None:
    async with visit(driver, url, 375) as person:
        await answered(person, "There.")
        rail = "document.querySelector('#rail').checkVisibility()"
        assert not await person.does("run", rail)
        await person.does("press", "Show the conversations")
        assert await person.does("run", f"{rail} && document.querySelector('#desk').inert")
        assert await person.does("focused") == "Hide the conversations"
        await person.does("keys", "Escape")
        assert not await person.does("run", f"{rail} || document.querySelector('#desk').inert")
        assert await person.does("focused") == "Show the conversations"
        await person.does("press", "Show the conversations")
        await person.does("click", "#history a")
        await person.does("until", f"!{rail}")


async def test_a_question_is_edited_and_an_answer_asked_anew_in_its_place(
    model: ModelServer, person: Person
) -> None:
    first, other = script(["Ada."]), script(["Grace."])
    await answered(person, "Before.")
    await person.does("ask", first)
    await person.sees("answer", "Ada.")
    await person.sees("state", "Done")
    asked = len(model.requests)
    await person.does("press", "Regenerate")
    await model.until(requests=asked + 1)
    await person.sees("state", "Done")
    assert await person.does("count", ".turn") == 2
    assert len(model.requests[-1]["messages"]) == 3  # the answer that was put aside is not told
    await person.does("hover", ".question")
    await person.does("press", "Edit")
    await person.does("fill", "Your question, to be edited", other)
    await person.does("press", "Ask this instead")
    await person.sees("answer", "Grace.")
    await person.sees("asked", other)
    assert await person.does("count", ".turn") == 2
    await person.does("reload")
    await person.does("until", "document.querySelectorAll('.turn').length === 2")
    await person.does("back")
    await person.sees("answer", "Ada.")  # and what was there before is not lost


async def test_an_error_is_one_message_with_its_cause_and_ask_again(person: Person) -> None:
    await person.does("ask", script([], status=401))
    await person.sees("note", "Sorry, this answer did not come to its end.", part=True)
    told = "[...document.querySelectorAll('.turn .note, .turn .state')]"
    assert (
        await person.does("run", f"{told}.filter(n => n.innerText.trim() && n.offsetHeight > 1).length") == 1
    )
    buttons = "[...document.querySelectorAll('.note button')].filter(b => b.checkVisibility())"
    assert await person.does("run", f"{buttons}.map(b => b.textContent)") == ["Ask again"]


@pytest.mark.parametrize(
    "window", [(1200, "light"), (1200, "dark"), (375, "light"), (320, "light", 256)], ids=str
)
async def test_axe_finds_nothing(
    driver: Process, url: str, model: ModelServer, window: tuple[object, ...]
) -> None:
    async with visit(driver, url, *window) as person:
        await person.does("until", "!document.querySelector('#model').hidden")
        assert await person.does("axe") == []
        gate = f"axe {window}"
        chunks = [*RICH, "last"]
        await person.does("ask", script(chunks, gate=gate, gate_at=len(RICH)))
        await person.does("until", "document.querySelector('.answer .code') !== null")
        await person.does("click", "#losing .other")
        await person.does("until", "document.querySelector('.second-said')?.textContent > ''")
        assert await person.does("axe") == []
        model.open_gate(gate)
        await person.sees("state", "Done")
        await person.does("click", ".how")
        await person.does("run", "document.querySelector('.question-actions').style.opacity = 1")
        await person.does("click", "#about-open")
        assert await person.does("axe") == []


async def test_the_header_says_what_answers_and_how_to_set_another_model(person: Person) -> None:
    await person.does("until", "!document.querySelector('#chains').hidden")
    await person.does("click", "#about-open")
    told = await person.does("run", "document.querySelector('#about').innerText")
    assert ("“chat” works in one stage." in told, "GATEWAY_MODEL" in told) == (True, True)
