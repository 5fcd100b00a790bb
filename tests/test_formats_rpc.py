"""The projections of A2A and MCP, and the envelope of JSON-RPC, tested alone."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from gateway import protocol
from gateway.formats.a2a.projection import TaskEvents
from gateway.formats.base.rpc import Call, enveloped
from gateway.formats.mcp.projection import Progress
from gateway.protocol import sse
from tests.test_formats_openai_projection import Tape


def a2a_events(tape: Tape) -> tuple[list[dict[str, Any]], TaskEvents]:
    made = TaskEvents(task="t", context="c", leg="t")
    return [frame.data for frame in tape.frames(made)], made


def voided() -> Tape:
    tape = Tape()
    began = tape.began()
    tape.said("void")
    tape.reset(began)
    tape.said("stands")
    tape.done()
    return tape


def test_a_reset_replaces_the_artifact_in_the_events_and_in_the_task() -> None:
    events, made = a2a_events(voided())
    told = [one["artifactUpdate"] for one in events if "artifactUpdate" in one]
    assert [(one["append"], one["artifact"]["parts"][0]["text"], one["lastChunk"]) for one in told] == [
        (False, "void", False),
        (False, "", False),
        (False, "stands", False),
        (True, "", True),
    ]
    assert made.artifacts() == [{"artifactId": "t", "name": "answer", "parts": [{"text": "stands"}]}]
    assert made.status == {"state": "TASK_STATE_COMPLETED"}


def test_a_later_leg_begins_no_other_task() -> None:
    made = TaskEvents(task="t", context="c", leg="second")
    first, *_ = [frame.data for frame in voided().frames(made)]
    assert next(iter(first)) == "statusUpdate"
    assert made.artifacts()[0]["artifactId"] == "second"
    assert made.id_before == "second."


def test_a_reset_is_told_in_mcps_progress_and_the_result_is_right() -> None:
    made = Progress(stream="s", call=7, token="t", version="2026-07-28")
    frames = [frame.data for frame in voided().frames(made) if frame.data != b""]
    notes = [one["params"] for one in frames if "method" in one]
    assert [one["progress"] for one in notes] == list(range(1, len(notes) + 1))
    assert [one["message"] for one in notes][1:] == ["void", "answer begins anew", "stands"]
    assert frames[-1]["id"] == 7
    assert frames[-1]["result"] == {
        "content": [{"type": "text", "text": "stands"}],
        "isError": False,
        "_meta": {"holdfast/stream": "s"},
        "resultType": "complete",
    }


def test_without_a_token_there_is_no_progress() -> None:
    made = Progress(stream="s", call=7, version="2025-11-25")
    frames = [frame.data for frame in voided().frames(made) if frame.data != b""]
    assert [set(one) for one in frames] == [{"jsonrpc", "id", "result"}]
    assert "resultType" not in frames[0]["result"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 11, 1000])
async def test_an_envelope_is_the_same_however_its_bytes_come_in_pieces(size: int) -> None:
    told = [{"a": "\\ndata: } \u2028"}, {"b": [1]}, "x"]
    whole = b"".join(b"id: %d\ndata: %b\n\n" % (at, sse.dumps(one)) for at, one in enumerate(told))

    async def pieces() -> AsyncGenerator[bytes, None]:
        for at in range(0, len(whole), size):
            yield whole[at : at + size]
        yield sse.HEARTBEAT
        yield b""

    wrap = enveloped(Call("é", "m", {}), b"id: f\ndata: 0\n\n")
    *made, beat, nothing = [piece async for piece in wrap(pieces())]
    assert (beat, nothing) == (sse.HEARTBEAT, b"")
    frames = b"".join(made).decode().split("\n\n")
    found = [json.loads(frame.partition("\ndata: ")[2]) for frame in frames[:-1]]
    assert found == [{"jsonrpc": "2.0", "id": "é", "result": one} for one in (0, *told)]


def test_a_question_is_a_result_that_is_an_error_to_mcp() -> None:
    tape = Tape()
    tape.began()
    done = protocol.done(finish_reason="interrupted", usage={}, attempts=1, duration_ms=1)
    done.data["interrupts"] = [{"id": "i", "value": "sure?"}]
    tape.add(done)
    made = Progress(stream="s", call=1, version="2026-07-28")
    tape.frames(made)
    assert made.result["isError"]
    assert made.result["structuredContent"] == {"interrupts": [{"id": "i", "value": "sure?"}], "stream": "s"}
