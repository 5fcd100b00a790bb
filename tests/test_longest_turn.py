"""No outsider makes the event loop wait longer than 50 ms at once (`docs/operations.md`, Bounds of a turn)."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.body import DEFAULT
from gateway.errors import Invalid
from gateway.formats.langgraph_request import begin_state, parse_run
from tests.support.turns import cost

BOUND_SECONDS = 0.050


def asked(messages: list[Any]) -> Any:
    return parse_run({"assistant_id": "chat", "input": {"messages": messages}})


MANY = {
    "texts": ["a"] * 10_000,
    "messages of other ids": [{"type": "human", "content": "a", "id": f"{n}"} for n in range(4000)],
    "removals": ["a"] * 999 + [{"type": "remove", "id": "x"} for _ in range(9001)],
    "answers of tools": [{"type": "tool"} for _ in range(10_000)],
}


@pytest.mark.parametrize("messages", MANY.values(), ids=MANY)
def test_fault_59_messages_past_their_bound_are_counted_before_any_is_looked_at(messages: list[Any]) -> None:
    def refused() -> None:
        with pytest.raises(Invalid, match=r"input.messages: must be at most 1000"):
            begin_state(asked(messages), [], DEFAULT)

    assert cost(refused) < BOUND_SECONDS / 10


def test_fault_59_messages_are_added_in_a_time_that_grows_as_they_do() -> None:
    before = [{"type": "human", "content": "a", "id": f"{n}"} for n in range(500)]
    run = asked([{"type": "human", "content": "b", "id": f"{n}"} for n in range(1000)])
    assert cost(lambda: begin_state(run, before, DEFAULT)) < 0.020
    again = asked([{"type": "remove", "id": f"{n}"} for n in range(499)] + ["a"] * 500)
    assert cost(lambda: begin_state(again, before, DEFAULT)) < 0.020
    assert len(begin_state(again, before, DEFAULT)["messages"]) == 501
