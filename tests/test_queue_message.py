"""What the queue carries: one line of JSON, and anything else is told apart from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.queue.job_queue import Message


@given(st.text(), st.text(), st.integers(min_value=0, max_value=2**53))
def test_a_message_survives_its_encoding(stream_id: str, trace: str, version: int) -> None:
    message = Message(stream_id, trace, version)
    assert b"\n" not in message.encode()
    assert Message.decode(message.encode()) == message


@given(
    st.binary()
    | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_fault_05_garbage_is_no_message(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever ValueError, but nothing else
        Message.decode(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 200_000,
        b'{"v":' + b"9" * 10_000 + b',"id":"x"}',
        b'{"v":true,"id":"x"}',
        b'{"v":1.0,"id":"x"}',
        b'{"v":1,"id":7}',
        b'{"v":1}',
        b'{"id":"x"}',
        b"[1]",
        b"null",
        b"",
    ],
    ids=lambda raw: raw[:20].decode(),
)
def test_fault_05_a_wrong_shape_is_no_message(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Message.decode(raw)
