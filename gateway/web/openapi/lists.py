"""JSON Schemas of what a caller owns: lists of streams and threads, and several streams at once."""

from __future__ import annotations

from gateway.protocol import EventType, Status
from gateway.relay.joint import FORM, MOST_STREAMS
from gateway.store.record import WAITING
from gateway.web.openapi.basics import (
    CURSOR_OR_NONE,
    EVENT_ID,
    ID,
    LAST_EVENT_ID,
    TEXT,
    THREAD_NAME,
    TIME,
    Schema,
    event,
    exactly,
    or_null,
    ref,
)

# Empty: every stream begins at its first event.
JOINT_POSITION: Schema = {"type": "string", "pattern": f"^({FORM}(\\.{FORM})*)?$"}


def components(most_items: int) -> dict[str, Schema]:
    """Return the schemas of a caller's streams and threads in their lists."""
    return {**_streams(most_items), **_usage(), **_threads()}


def _streams(most_items: int) -> dict[str, Schema]:
    return {
        "Joint": {
            "type": "object",
            "required": ["streams"],
            "properties": {
                "streams": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": min(MOST_STREAMS, most_items),
                    "items": {
                        "type": "object",
                        "required": ["id"],
                        "properties": {"id": ID, "last_event_id": or_null(LAST_EVENT_ID)},
                    },
                }
            },
        },
        "JointEvent": {
            **event([*EventType], JOINT_POSITION, exactly(stream=ID, id=CURSOR_OR_NONE, data={})),
            "description": "an event of one of the streams: `event:` is as in its own log, and so is the "
            "`data` within `data:`; `id:` is the joint position",
        },
        "Streams": exactly(
            streams={"type": "array", "items": ref("StreamRow")}, next=or_null({"type": "string"})
        ),
        "StreamRow": exactly(**_row()),
        "FeedEvent": {
            "oneOf": [
                event(["started", "waiting", "ended"], CURSOR_OR_NONE, ref("StreamRow")),
                event(["stage"], CURSOR_OR_NONE, exactly(**_row(), stage={"type": "object"})),
                event(["reset"], {"const": "0"}, exactly(reason={"const": "log_lost"})),
            ],
            "description": "the row of a stream as of `event:`; in `stage` it has the data of the stream's "
            "own event; of the feed's beginning only the last event has an `id:`",
        },
    }


def _row() -> dict[str, Schema]:
    return {
        "id": ID,
        "status": {"enum": [*(status.value for status in Status), WAITING]},
        "chain": TEXT,
        "thread": or_null(THREAD_NAME),
        "created_at": TIME,
        "started_at": or_null(TIME),
        "ended_at": or_null(TIME),
        "metadata": {"type": ["object", "null"]},
        "last_event_id": EVENT_ID,
        "finish_reason": or_null(TEXT),
        "error": or_null(ref("Failure")),
        "usage": or_null(ref("Usage")),
    }


def _usage() -> dict[str, Schema]:
    count: Schema = {"type": "integer", "minimum": 0}
    told = exactly(
        input_tokens=count,
        output_tokens=count,
        total_tokens=count,
        limit={"type": ["integer", "null"], "minimum": 1},
    )
    return {"OwnUsage": exactly(day=told, minute=told)}


def _threads() -> dict[str, Schema]:
    return {
        "Threads": exactly(
            threads={"type": "array", "items": ref("Thread")}, next=or_null({"type": "string"})
        ),
        "Thread": exactly(
            thread=THREAD_NAME,
            status={"enum": ["idle", "busy", "interrupted", "error"]},
            chain=TEXT,
            created_at=TIME,
            updated_at=TIME,
            stream=or_null(ID),
        ),
        "ThreadState": {
            **exactly(
                values={},
                next={"type": "array", "items": TEXT},
                tasks={"type": "array", "items": {"type": "object"}},
                checkpoint=or_null({"type": "object"}),
                metadata={"type": "object"},
                created_at=or_null(TIME),
                parent_checkpoint=or_null({"type": "object"}),
                interrupts={"type": "array", "items": {"type": "object"}},
            ),
            "description": "as LangGraph's server tells it",
        },
    }
