"""Threads: which one a stream's checkpoints belong to."""

from __future__ import annotations

from gateway.store.record import Record
from gateway.store.threads import thread_id


def test_checkpoints_belong_to_the_named_thread_else_to_the_first_stream() -> None:
    fields = {"owner": "alice", "chain": "c"}
    assert thread_id(Record.made("id", fields)) == "stream:id"
    assert thread_id(Record.made("id", {**fields, "first": "one"})) == "stream:one"
    assert thread_id(Record.made("id", {**fields, "first": "one", "thread": "trip"})) == "trip"
