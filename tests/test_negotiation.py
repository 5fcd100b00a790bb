"""Which content type a client prefers, as a table of Accept headers (RFC 9110, 12.5.1)."""

from __future__ import annotations

import pytest

from gateway.web.negotiate import negotiate

EVENTS, JSON = "text/event-stream", "application/json"
NONE: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("accept", "following", "posting"),
    [
        # no header, or any type is accepted: GET answers with events, POST with JSON
        (NONE, EVENTS, JSON),
        (("",), EVENTS, JSON),
        ((" , ,",), EVENTS, JSON),
        (("*/*",), EVENTS, JSON),
        (("text/html, image/gif, *; q=.2, */*; q=.2",), EVENTS, JSON),
        (("no range",), EVENTS, JSON),
        # one type is named
        ((EVENTS,), EVENTS, EVENTS),
        ((JSON,), JSON, JSON),
        (("TEXT/Event-Stream; Q=0.5",), EVENTS, EVENTS),
        ((f"{EVENTS};charset=utf-8",), EVENTS, EVENTS),
        # both types are named: the higher weight wins, and for equal weights the events
        ((f"{JSON}, {EVENTS}",), EVENTS, EVENTS),
        ((JSON, EVENTS), EVENTS, EVENTS),
        ((f"{JSON};q=0.9, {EVENTS}",), EVENTS, EVENTS),
        ((f"{JSON}, {EVENTS};q=0.9",), JSON, JSON),
        ((f"{JSON};q=0.001, {EVENTS};q=0.01",), EVENTS, EVENTS),
        # ranges and names: the most exact entry gives the weight; for equal weights, the named type wins
        ((f"{JSON}, */*",), JSON, JSON),
        ((f"{JSON}, text/plain, */*",), JSON, JSON),
        ((f"{EVENTS}, */*;q=0.1",), EVENTS, EVENTS),
        ((f"{JSON};q=0.1, */*",), EVENTS, EVENTS),
        ((f"{EVENTS};q=0.2, text/*;q=0.9, {JSON};q=0.5",), JSON, JSON),
        (("text/*",), EVENTS, EVENTS),
        (("application/*",), JSON, JSON),
        (("text/*, application/*",), EVENTS, JSON),
        # types that are refused (weight 0), or that are not offered
        ((f"{EVENTS};q=0",), None, None),
        ((f"{EVENTS};q=0.000",), None, None),
        ((f"{EVENTS};q=0, */*",), JSON, JSON),
        ((f"{JSON};q=0, */*",), EVENTS, EVENTS),
        (("*/*;q=0",), None, None),
        ((f"*/*;q=0, {JSON};q=0.1",), JSON, JSON),
        (("text/html",), None, None),
        (("text/html;q=0",), None, None),
        # an invalid weight: the entry is ignored
        ((f"{EVENTS};q=2, {JSON}",), JSON, JSON),
        ((f"{EVENTS};q=x, {JSON}",), JSON, JSON),
        ((f"{EVENTS};q=nan, {JSON}",), JSON, JSON),
        ((f"{EVENTS};q=-1, {JSON}",), JSON, JSON),
    ],
)
def test_fault_52_accept_is_weighed(
    accept: tuple[str, ...], following: str | None, posting: str | None
) -> None:
    assert negotiate(accept, (EVENTS, JSON), EVENTS) == following
    assert negotiate(accept, (EVENTS, JSON), JSON) == posting


def test_fault_52_what_is_beyond_any_use_is_not_looked_at() -> None:
    assert negotiate([", ".join(["text/html"] * 100_000) + f", {JSON}"], (EVENTS, JSON), EVENTS) is None
