"""The bearer token of a request (RFC 6750, 2.1)."""

from __future__ import annotations

import re

from starlette.datastructures import Headers

_BEARER = re.compile(r"(?i:bearer) +([\x21-\x7e]{1,8192})")


def bearer(headers: Headers) -> str:
    """The bearer token, or nothing; more than one Authorization is none."""
    given = headers.getlist("authorization")
    found = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    return found[1] if found else ""
