"""Read the bearer token of a request (RFC 6750, 2.1)."""

from __future__ import annotations

import re

from starlette.datastructures import Headers

_BEARER = re.compile(r"(?i:bearer) +([\x21-\x7e]{1,8192})")


def bearer(headers: Headers) -> str:
    """Return the bearer token, or an empty text. Several Authorization headers count as no token."""
    given = headers.getlist("authorization")
    found = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    return found[1] if found else ""
