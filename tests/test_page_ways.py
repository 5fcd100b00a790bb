"""What the page makes of a graph's question, without a browser: web/ways.js in Node."""

from __future__ import annotations

from tests.support.programs import run


async def test_each_kind_of_question_has_its_ways_and_each_way_its_answer() -> None:
    told = (await run("node", "--test", "--test-reporter=tap", "ways.test.mjs")).decode()
    assert ("# tests 0" in told, "# skipped 0" in told) == (False, True)
