"""One reader's end of a live feed. No I/O: the log is a list, publishes are offered by hand."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import Cursor
from gateway.relay.block import MERGED_BYTES, Block, merged
from gateway.relay.reader import Subscription, Why

BOUND = 1000


def block(number: int, *, before: str | None = None, tag: str = "aaaa", final: bool = False) -> Block:
    """The block of event `number`, one byte of log each, so that its id is `<number>-<tag>`."""
    return Block(before or f"{number - 1}-{tag}", f"{number}-{tag}", final, 0, b"%d " % number)


def at(number: int, tag: str = "aaaa", bound: int = BOUND) -> Subscription:
    """A reader that has just read the log up to this event."""
    reader = Subscription(bound)
    reader.begin_read()
    reader.read_to(Cursor(f"{number}-{tag}"), more=False)
    return reader


def taken(reader: Subscription) -> str:
    return reader.take().decode().strip()


def test_live_3_history_1_live_4_history_2_gives_1_2_3_4() -> None:
    reader = Subscription(BOUND)
    got = []
    reader.begin_read()
    reader.offer(block(3))
    got.append("1")  # the first piece of the log
    reader.read_to(Cursor("1-aaaa"), more=True)
    reader.offer(block(4))
    got.append("2")  # the second
    reader.read_to(Cursor("2-aaaa"), more=False)
    got.append(taken(reader))
    assert " ".join(got) == "1 2 3 4"
    assert not reader.doubt


def test_a_new_reader_doubts_so_it_reads_the_log_first() -> None:
    reader = Subscription(BOUND)
    reader.offer(block(1))
    assert reader.doubt
    assert reader.take() == b""


def test_blocks_that_follow_are_passed_on_as_they_are() -> None:
    reader = at(1)
    reader.offer(block(2))
    reader.offer(block(3))
    assert reader.head == "3-aaaa"
    assert taken(reader) == "2 3"
    assert str(reader.last) == reader.head == "3-aaaa"


def test_a_gap_becomes_doubt_and_nothing_behind_it_is_given() -> None:
    reader = at(1)
    for number in (2, 4, 5):
        reader.offer(block(number))
    assert taken(reader) == "2"
    assert reader.doubt
    assert str(reader.last) == "2-aaaa"
    reader.offer(block(6))
    assert taken(reader) == ""


def test_a_double_becomes_doubt_and_is_not_given_twice() -> None:
    reader = at(1)
    for number in (2, 2, 3):
        reader.offer(block(number))
    assert taken(reader) == "2"
    assert reader.doubt


def test_blocks_that_the_log_read_has_already_given_are_no_surprise() -> None:
    reader = at(5)
    for number in (3, 4, 5, 6):
        reader.offer(block(number))
    assert taken(reader) == "6"
    assert not reader.doubt
    reader.offer(block(4))  # but after the first that fits an older one is
    assert taken(reader) == ""
    assert reader.doubt


@pytest.mark.parametrize(
    ("joined", "tail"),
    [
        (True, block(3, before="2-aaaa", tag="bbbb")),  # lower than the reader's last
        (True, block(5, before="4-aaaa", tag="bbbb")),  # equal
        (True, block(8, before="2-aaaa", tag="bbbb")),  # higher
        (False, block(5, before="4-aaaa", tag="bbbb")),
        (False, block(8, before="2-aaaa", tag="bbbb")),
    ],
)
def test_a_tail_written_anew_by_another_claim_becomes_doubt(joined: bool, tail: Block) -> None:
    reader = at(4 if joined else 5)
    if joined:
        reader.offer(block(5))
        assert taken(reader) == "5"
    reader.offer(tail)
    assert taken(reader) == ""
    assert reader.doubt


def test_a_tail_written_anew_below_a_joining_reader_is_found_by_its_next_block() -> None:
    reader = at(5)
    reader.offer(block(3, before="2-aaaa", tag="bbbb"))
    assert not reader.doubt  # it could be an old block of another attempt; the look would find it, too
    reader.offer(block(6, before="3-bbbb", tag="bbbb"))
    assert taken(reader) == ""
    assert reader.doubt


def test_past_the_bound_it_holds_a_position_and_no_data_and_what_is_taken_makes_room() -> None:
    reader = at(0, bound=4)
    for number in range(1, 10):
        reader.offer(block(number))
        assert taken(reader) == str(number)
    assert not reader.doubt
    reader = at(0, bound=10)
    for number in range(1, 10):
        reader.offer(block(number))
        assert sum(len(b.frames) for b in reader._blocks) <= 10
    assert reader.doubt
    assert reader.head == str(reader.last) == "0-aaaa"


def test_the_final_block_ends_it_and_nothing_follows() -> None:
    reader = at(1)
    reader.offer(block(2, final=True))
    reader.offer(block(3))
    assert reader.take() == b"2 "
    assert (reader.ended, reader.why) == (True, Why.TERMINAL)


def test_it_takes_about_64_kib_at_a_time() -> None:
    reader = at(0, bound=1 << 20)
    large = b"x" * (MERGED_BYTES // 2)
    for number in range(1, 5):
        reader.offer(Block(f"{number - 1}-aaaa", f"{number}-aaaa", False, 0, large))
    assert reader.take() == 2 * large
    assert reader.take() == 2 * large
    assert reader.take() == b""


async def test_it_wakes_for_a_block_a_doubt_a_beat_and_the_end() -> None:
    for cause in (lambda r: r.offer(block(2)), Subscription.lose, lambda r: r.pulse(7.0), Subscription.end):
        reader = at(1)
        waiting = asyncio.create_task(reader.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        cause(reader)
        await asyncio.wait_for(waiting, 5)
        await asyncio.wait_for(reader.wait(), 5)  # the cause still stands


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no line feed",
        b"a b\nx",
        b"0-aaaa 5-aaaa x running\n",
        b"0-aaaa word \n",
        b"\xff \xff x\n",
        b"0-aaaq 5-aaaa running 7\n",  # the fuzzer's: what came before was not looked at,
        b"0-aaaa 5-aaaa running 1_0\n",  # and the time read as Python reads numbers
        b"0-aaaa 5-aaaa running +7\n",
        b"0-aaaa 5-aaaa \x89 7\n",
    ],
)
def test_a_payload_that_is_not_a_block_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not a published block"):
        Block.parse(payload)


@pytest.mark.parametrize(
    ("status", "final"), [("", False), ("queued", False), ("done", True), ("failed", True)]
)
def test_a_block_knows_whether_it_ends_the_stream(status: str, final: bool) -> None:
    parsed = Block.parse(f"0-aaaa 60-aaaa {status} 7\nid: 60-aaaa\ndata: {{}}\n\n".encode())
    assert parsed == Block("0-aaaa", "60-aaaa", final, 7, b"id: 60-aaaa\ndata: {}\n\n")


# What may happen between two moments of a reader: an append, whose publish comes so often, sooner or
# later; the reader takes what has come; or it reads a piece of the log.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 2), st.booleans()),
        st.just(("deliver",)),
        st.just(("take",)),
        st.just(("piece",)),
        st.just(("look",)),
    ),
    max_size=60,
)


@given(STEPS, st.integers(3, 40))
def test_any_interleaving_of_publishes_and_log_reads_gives_exactly_the_log(
    steps: list[tuple[str | int, ...]], bound: int
) -> None:
    log = [0]
    on_the_way: list[Block] = []
    reader, got = Subscription(bound), list[int]()

    def has(number: int) -> None:
        reader.read_to(Cursor(f"{number}-aaaa"), more=False)

    def piece() -> None:
        """Two events at most, as the relay reads: what is published meanwhile counts as new."""
        reader.begin_read()
        for number in log[len(got) :][:2]:
            got.append(number)
            has(number)
        if len(got) < len(log):
            reader.lose()  # the relay reads on

    def take() -> None:
        if not reader.doubt:
            got.extend(int(word) for word in reader.take().split())

    for step in steps:
        match step:
            case ("append", int(times), bool(late)):
                log.append(len(log))
                copies = [block(log[-1])] * times
                on_the_way[:0] = copies if late else []
                on_the_way += [] if late else copies
            case ("deliver",):
                if on_the_way:
                    reader.offer(on_the_way.pop(0))
            case ("take",):
                take()
            case ("piece",):
                if reader.doubt:
                    piece()
            case ("look",):
                if reader.head != block(log[-1]).last:
                    reader.lose()
        assert got == log[: len(got)]
        assert sum(len(b.frames) for b in reader._blocks) <= bound + 3
    while got != log:  # the look finds what was lost
        take()
        if got != log:
            reader.lose()
            piece()
        assert got == log[: len(got)]


def test_blocks_that_follow_on_one_another_are_one_and_the_final_one_stays_alone() -> None:
    run = [block(1), block(2), block(3, before="9-aaaa"), block(4), block(5, final=True)]
    told = [(one.before, one.last, one.final, one.frames) for one in merged(run)]
    assert told == [
        ("0-aaaa", "2-aaaa", False, b"1 2 "),
        ("9-aaaa", "4-aaaa", False, b"3 4 "),
        ("4-aaaa", "5-aaaa", True, b"5 "),
    ]


def test_a_merged_block_has_a_bound() -> None:
    large = [Block(f"{n}-aaaa", f"{n + 1}-aaaa", False, 0, bytes(MERGED_BYTES // 2)) for n in range(6)]
    assert [len(one.frames) for one in merged(large)] == [MERGED_BYTES] * 3


def test_a_reader_that_rests_is_written_to_at_once_and_any_other_is_not() -> None:
    reader, written, woken = at(1), list[str](), list[str]()

    def write(one: Block) -> bool:
        written.append(one.last)
        return len(written) < 3

    def wake() -> None:
        woken.append(str(reader.last))

    reader.offer(block(2))  # it does not rest
    assert (written, taken(reader)) == ([], "2")
    reader.rest(wake, write)
    reader.offer(block(3), 7.0)
    assert (str(reader.last), reader.silent_seconds(9.0), reader.has_work) == ("3-aaaa", 2.0, False)
    reader.offer(block(5, before="4-aaaa"))  # a gap waits for the reader's task, which sees it
    reader.offer(block(6, before="5-aaaa"))
    assert written == woken == ["3-aaaa"]  # it is woken once
    assert reader.has_work
    reader.take()
    assert reader.doubt
    reader.begin_read()
    reader.rest(wake, write)
    reader.offer(block(4))
    reader.offer(block(5))  # the socket is behind
    assert (written, taken(reader)) == (["3-aaaa", "4-aaaa", "5-aaaa"], "5")
    reader.rest(wake, write)
    reader.offer(block(6, final=True))
    assert written == ["3-aaaa", "4-aaaa", "5-aaaa"]
    assert woken == ["3-aaaa", "4-aaaa", "5-aaaa"]
    assert (reader.take(), reader.why) == (b"6 ", Why.TERMINAL)


def test_who_rests_with_something_to_do_is_woken_at_once_and_who_rises_is_not() -> None:
    reader, woken = at(1), list[int]()
    reader.offer(block(2))
    reader.rest(lambda: woken.append(1))
    assert woken == [1]
    assert taken(reader) == "2"
    reader.rest(lambda: woken.append(2))
    reader.rise()
    reader.offer(block(3))
    assert woken == [1]


def test_a_heartbeat_is_written_to_a_reader_that_rests_and_waits_for_any_other() -> None:
    reader, written = at(1), list[bytes]()

    def write(one: Block) -> bool:
        written.append(one.frames)
        return True

    reader.rest(lambda: None, write)
    reader.pulse(7.0)
    assert (written, reader.has_work, reader.silent_seconds(8.0)) == ([b":\n"], False, 1.0)
    reader.rise()
    reader.pulse(9.0)
    assert (reader.has_work, reader.take(), reader.has_work) == (True, b":\n", False)
    reader.pulse(9.0)
    reader.offer(block(2))
    assert (reader.take(), reader.has_work) == (b"2 ", False)  # frames are a sign of life themselves


def test_the_first_reason_to_end_counts() -> None:
    reader = at(1)
    assert (reader.ended, reader.why) == (False, Why.NONE)
    reader.end(Why.AGE)
    reader.end(Why.STOPPING)
    assert (reader.ended, reader.why) == (True, Why.AGE)
