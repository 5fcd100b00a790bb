"""The contract as data: cursors, ids, transitions, names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import protocol
from gateway.protocol import TRANSITIONS, Cursor, Event, EventType, Status
from gateway.queue.overdue import TIME_LIMIT
from gateway.store.log import Log, bucket
from tests.model.streams import DONE, Pen, Stream, open_log, said

DIGITS = "0123456789"
HEX = "0123456789abcdef"
NOT_CURSORS = [
    "",
    "0",
    "12",
    "-12",
    "-1-beef",
    "+1-beef",
    "1e3",
    "1e3-beef",
    "last",
    "12-BEEF",
    "12-bee",
    "12-beeff",
    "12_beef",
    "12-beef ",
    " 12-beef",
    "12 -beef",
    "12-beef\n",
    "12-beef\0",
    "12-beef,13-beef",
    "12-bee\uff46",  # a full-width f
    "\u0661\u0662-beef",  # Arabic digits, which `\d` and `int` both take
    "\u00b2-beef",  # a superscript, which `isdigit` takes
    "12345678901-beef",
    "$",
    "*",
    "+inf",
    "1" * 10_240 + "-beef",
]


@pytest.mark.parametrize("text", NOT_CURSORS, ids=lambda text: ascii(text)[:24])
def test_fault_21_what_has_not_the_form_of_an_event_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an event id"):
        Cursor.parse(text)


@given(st.text() | st.text(alphabet=DIGITS + HEX + "-eE+. \n\u0661", max_size=18))
def test_fault_21_only_ascii_digits_a_dash_and_four_hex_digits_pass(text: str) -> None:
    digits, _, tag = text.partition("-")
    fits = 1 <= len(digits) <= 10 and set(digits) <= set(DIGITS) and len(tag) == 4 and set(tag) <= set(HEX)
    if fits:
        assert Cursor.parse(text).offset == int(digits)
    else:
        with pytest.raises(ValueError, match="not an event id"):
            Cursor.parse(text)


@given(st.text(DIGITS, min_size=1, max_size=10), st.text(HEX, min_size=4, max_size=4))
def test_a_cursor_is_kept_as_it_was_given(digits: str, tag: str) -> None:
    cursor = Cursor.parse(f"{digits}-{tag}")
    assert (str(cursor), cursor.offset) == (f"{digits}-{tag}", int(digits))


def test_stream_ids_are_a_bucket_and_128_random_bits() -> None:
    assert protocol.ID_RANDOM_BYTES * 8 >= 128
    ids = [protocol.new_stream_id() for _ in range(2000)]
    assert all(protocol.is_stream_id(each) and len(each) == 24 for each in ids)
    assert len({each[2:] for each in ids}) == 2000
    for place in range(2, 23):  # each place takes any of 64 signs
        assert len({each[place] for each in ids}) == 64
    assert len({each[23] for each in ids}) == 4  # 21 times six bits, and two
    assert len({bucket(each) for each in ids}) > 200  # of 256


def test_two_streams_of_one_key_are_in_one_bucket() -> None:
    key = protocol.idempotency_hash("owner", "key")
    one, other = protocol.new_stream_id(key), protocol.new_stream_id(key)
    assert one != other
    assert bucket(one) == bucket(other) == key[:2]


def test_an_owner_cannot_reach_anothers_key() -> None:
    # A key is printable ASCII, so the NUL between the two stands where the owner ends.
    assert protocol.idempotency_hash("ab", "c") != protocol.idempotency_hash("a", "bc")
    assert protocol.idempotency_hash("a", "b") != protocol.idempotency_hash("b", "a")


@pytest.mark.parametrize(
    "text",
    ["", "ab", "ab" + "x" * 21, "ab" + "x" * 23, "zz" + "x" * 22, "ab" + "*" * 22, "ab" + "x" * 21 + "\n"],
)
def test_anything_else_is_no_stream_id(text: str) -> None:
    assert not protocol.is_stream_id(text)


def test_a_tokens_first_digits_are_its_tag() -> None:
    tokens = {protocol.new_token() for _ in range(100)}
    assert len(tokens) == 100
    for token in tokens:
        assert len(token) == 32
        assert Cursor.parse(f"0-{protocol.tag_of(token)}")


@pytest.mark.parametrize("mark", ["\r", "\n", "\0"])
def test_fault_20_an_event_type_or_name_that_could_forge_a_frame_is_refused(mark: str) -> None:
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        Event(f"done{mark}data: x", {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="CR, LF"):
        protocol.stage(f"draft{mark}", run=1, index=0, count=1)


def test_a_name_is_bounded() -> None:
    assert protocol.name("n" * 200)
    with pytest.raises(ValueError, match="200 characters"):
        protocol.name("n" * 201)


def test_no_event_has_a_name_that_eventsource_uses_itself() -> None:
    assert not {"error", "open", "message"} & set(EventType)


GOOD_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (GOOD_TRACE, GOOD_TRACE),
        (GOOD_TRACE.upper(), ""),
        (GOOD_TRACE + "\n", ""),
        (GOOD_TRACE.replace("00-", "ff-", 1), ""),
        ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", ""),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01", ""),
        ("nonsense", ""),
        ("", ""),
    ],
)
def test_a_traceparent_is_kept_only_when_it_is_one(given: str, kept: str) -> None:
    assert protocol.traceparent(given) == kept


async def fails(log: Log, pen: Pen) -> object:
    """By its worker; a stream that none holds, by whoever finds that its time is over."""
    stream_id = pen.claim.record.id
    record, _ = await log.record(stream_id)
    if record is None or record.status is not Status.QUEUED:
        return await pen.write(protocol.failed("c", "m", retryable=False), status="failed")
    await log._redis.call("HSET", Log.keys(stream_id)[0], "since_ms", 1, "run_ms", 1)
    return await log.give_up(stream_id, "cafe", TIME_LIMIT)


Move = Callable[[Log, Pen], Awaitable[object]]
MOVES: dict[Status, Move] = {
    Status.QUEUED: lambda log, pen: pen.release(),
    Status.RUNNING: lambda log, pen: log.claim(pen.claim.record.id, protocol.new_token(), 1000),
    Status.DONE: lambda log, pen: pen.write(DONE, status="done"),
    Status.FAILED: fails,
    Status.CANCELLED: lambda log, pen: log.cancel(pen.claim.record.id, "cafe"),
}


@pytest.mark.parametrize("target", list(Status))
@pytest.mark.parametrize("source", list(Status))
async def test_the_scripts_allow_what_the_transition_table_allows(
    redis_url: str, source: Status, target: Status
) -> None:
    async with open_log(redis_url) as log:
        stream = await Stream.create(log)
        pen = await stream.pen()
        await pen.write(said("a"))
        if source is not Status.RUNNING:
            await MOVES[source](log, pen)
        before, _ = await log.record(stream.id)
        await MOVES[target](log, pen)
        after, _ = await log.record(stream.id)
        assert before is not None
        assert after is not None
        assert before.status == source
        assert after.status == (target if target in TRANSITIONS[source] else source)
