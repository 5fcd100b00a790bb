"""What the store says of a stream, read from the hash's fields."""

from __future__ import annotations

import pytest

from gateway.protocol import ENDED, Status
from gateway.store.record import Claim, Record
from tests.model.streams import record_fields, token

STREAM_ID = "ab" + "x" * 22


def raw(**changes: object) -> dict[str, bytes]:
    fields = record_fields(status="running", attempt=2, failures=1) | changes
    return {name: str(value).encode() for name, value in fields.items() if value is not None}


def test_reads_what_a_post_has_put() -> None:
    record = Record.of(STREAM_ID, raw(confirmed=1, started_ms=7, metadata='{"a": 1}', trace="t"))
    assert (record.id, record.status, record.attempt, record.failures) == (STREAM_ID, "running", 2, 1)
    assert (record.owner, record.chain, record.stages, record.version) == ("anonymous", "chat", ["answer"], 1)
    assert (record.confirmed, record.created_ms, record.started_ms, record.ended_ms) == (True, 1, 7, None)
    assert (record.input, record.params, record.metadata) == ({"messages": "a prompt"}, {}, {"a": 1})


def test_what_is_not_there_has_a_plain_default() -> None:
    record = Record.of(STREAM_ID, {"status": b"queued"})
    assert (record.confirmed, record.attempt, record.version, record.last_id) == (False, 0, 0, "")
    assert (record.input, record.params, record.stages, record.usage) == (None, {}, [], None)


@pytest.mark.parametrize("status", list(Status))
def test_knows_whether_it_has_ended(status: Status) -> None:
    assert Record.of(STREAM_ID, raw(status=status)).ended == (status in ENDED)


def test_a_status_of_no_release_is_refused() -> None:
    with pytest.raises(ValueError, match="paused"):
        Record.of(STREAM_ID, raw(status="paused"))


def test_fault_27_neither_prompt_nor_token_is_in_its_text() -> None:
    record = Record.of(STREAM_ID, raw(input='"canary-1"', params='{"a": "canary-2"}'))
    text = repr(Claim(record, "canary-3", 0, 0))
    assert STREAM_ID in text
    assert "canary" not in text


def test_a_claims_tag_is_its_tokens_first_digits() -> None:
    assert Claim(Record.of(STREAM_ID, raw()), token(0xBEEF), 0, 0).tag == "beef"
