"""The event `graph` in the OpenAPI document. No I/O."""

from __future__ import annotations

from gateway.web.openapi.basics import TEXT, Schema, also, exactly


def step(run: Schema) -> Schema:
    """Return the schema for the data of an event `graph`: a step of a graph."""
    anything: Schema = {"type": "object"}
    return also(
        exactly(kind={"enum": ["message", "updates", "values", "piece", "last_piece"]}, stage=TEXT),
        run=run,
        ns=TEXT,
        number=run,
        state={"enum": ["started", "finished"]},
        node=TEXT,
        step={"type": "integer"},
        tags={},
        shown={"const": True},
        message=anything,
        own=anything,
        data={},
        text=TEXT,
        changes=anything,
    )
