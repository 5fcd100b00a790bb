"""Convert events to text by `docs/protocol.md`. The code is independent of the product's fold, which it
checks."""

from __future__ import annotations

import json
from typing import Any

from tests.chaos import wire


def fold(log: bytes) -> dict[str, Any]:
    """Return the part of the status document that the log alone determines."""
    stages: list[dict[str, Any]] = []
    began: list[str] = []
    document: dict[str, Any] = {"last_event_id": "", "status": None}
    for frame in wire.frames_of(log):
        kind, data = wire.kind(frame).decode(), json.loads(frame[frame.index(b"\ndata: ") + 7 :])
        document["last_event_id"] = wire.event_id(frame)
        if kind == "":
            stages[-1]["text"] += data["delta_content"]
        elif kind == "stage" and data["state"] == "started":
            stages.append({"name": data["name"], "run": data["run"], "state": "started", "text": ""})
            began.append(wire.event_id(frame))
        elif kind == "stage":
            stages[-1]["state"] = "finished"
        elif kind == "reset":
            stages[began.index(data["discard_after"])]["text"] = ""
        elif wire.terminal(frame):
            document["status"] = kind
    return document | {"stages": stages, "text": stages[-1]["text"] if stages else ""}
