"""Basic parts of the schemas: names, numbers, objects. No I/O.

All patterns have the same meaning in ECMA-262, Python and Rust.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gateway.protocol import CURSOR, STREAM_ID

Schema = dict[str, Any]

ANY_ID: Schema = {"type": "string", "minLength": 1}
ID: Schema = {"type": "string", "pattern": f"^{STREAM_ID.pattern}$"}
EVENT_ID: Schema = {"type": "string", "pattern": f"^{CURSOR.pattern}$"}
# `0` is the id of the event `log_lost`.
CURSOR_OR_NONE: Schema = {"type": "string", "pattern": f"^(?:0|{CURSOR.pattern})$"}
LAST_EVENT_ID: Schema = {"type": "string", "pattern": f"^(?:0|{CURSOR.pattern})?$"}
# A header's value has no space at its beginning or end (RFC 9110, 5.5).
IDEMPOTENCY_KEY: Schema = {"type": "string", "pattern": "^[!-~](?:[ -~]{0,253}[!-~])?$"}
TIME: Schema = {"type": "string", "format": "date-time"}
THREAD_NAME: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 200,
    "pattern": r"^[^/\x00-\x1f\x7f-\x9f]+$",
    "not": {"anyOf": [{"enum": [".", ".."]}, {"pattern": "^stream:"}]},
}
# A character that `str.strip` does not remove.
NOT_BLANK = (
    # A test compares this pattern with `str.strip`.
    r"[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
)
TEXT: Schema = {"type": "string"}
NATURAL: Schema = {"type": "integer", "minimum": 0}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document's components, by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def where(base: str) -> Schema:
    """Return the schema of a stream's path. `base` is the path below which the gateway is reached."""
    # Escape the characters that have a meaning in a pattern of ECMA-262.
    escaped = re.sub(r"[$()*+.?]", r"\\\g<0>", base)
    return {"type": "string", "pattern": f"^{escaped}/stream/{STREAM_ID.pattern}$"}


def exactly(**properties: Schema) -> Schema:
    """Return the schema of an object that has all of these properties, and no other property."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def also(schema: Schema, **optional: Schema) -> Schema:
    """Return the schema of the same object, with additional properties that are optional."""
    return {**schema, "properties": {**schema["properties"], **optional}}


def or_null(schema: Schema) -> Schema:
    """Return a schema that also allows null."""
    return {"anyOf": [schema, {"type": "null"}]}


def event(kinds: Sequence[str], position: Schema, data: Schema) -> Schema:
    """Return the schema of one server-sent event of these kinds. `position`: the schema of its id.

    A text event has the empty kind and no `event:` line, so clients call it `message`.
    """
    text = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    names = {"enum": [kind or "message" for kind in kinds]}
    return {**exactly(id=position, event=names, data=text, retry=NATURAL), "required": ["data"]}
