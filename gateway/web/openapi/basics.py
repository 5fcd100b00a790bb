"""What schemas are made of: names, numbers, objects. No I/O.

Patterns mean the same to ECMA-262, Python and Rust.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.protocol import CURSOR, STREAM_ID

Schema = dict[str, Any]

ANY_ID: Schema = {"type": "string", "minLength": 1}
ID: Schema = {"type": "string", "pattern": f"^{STREAM_ID.pattern}$"}
EVENT_ID: Schema = {"type": "string", "pattern": f"^{CURSOR.pattern}$"}
CURSOR_OR_NONE: Schema = {"type": "string", "pattern": f"^(?:0|{CURSOR.pattern})$"}  # 0: of `log_lost`
LAST_EVENT_ID: Schema = {"type": "string", "pattern": f"^(?:0|{CURSOR.pattern})?$"}
# A field's value has no blank at either end (RFC 9110, 5.5).
IDEMPOTENCY_KEY: Schema = {"type": "string", "pattern": "^[!-~](?:[ -~]{0,253}[!-~])?$"}
TIME: Schema = {"type": "string", "format": "date-time"}
THREAD_NAME: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 200,
    "pattern": r"^[^/\x00-\x1f\x7f-\x9f]+$",
    "not": {"anyOf": [{"enum": [".", ".."]}, {"pattern": "^stream:"}]},
}
# What `str.strip` leaves something of.
NOT_BLANK = (
    r"[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"  # a test compares the two
)
TEXT: Schema = {"type": "string"}
NATURAL: Schema = {"type": "integer", "minimum": 0}


def ref(name: str) -> Schema:
    """A schema of the document's components, by name."""
    return {"$ref": f"#/components/schemas/{name}"}


def where(base: str) -> Schema:
    """A stream's path, below the gateway's own."""
    escaped = re.sub(r"[$()*+.?]", r"\\\g<0>", base)  # what has a meaning in a pattern of ECMA-262
    return {"type": "string", "pattern": f"^{escaped}/stream/{STREAM_ID.pattern}$"}


def exactly(**properties: Schema) -> Schema:
    """All of these properties, and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def also(schema: Schema, **optional: Schema) -> Schema:
    """The same object, with properties that it may have."""
    return {**schema, "properties": {**schema["properties"], **optional}}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}
