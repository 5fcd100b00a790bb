"""Claims: what a caller's sign-in says about the caller in addition to the name. Chains get them. No I/O.

Only claims that the operator names (GATEWAY_CHAIN_CLAIMS) are used, only values that a chain can use
unchanged, and only up to a total size. They are stored with the stream's owner and passed to the chain. No
answer and no log line contains them.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from gateway.protocol import sse
from gateway.protocol.errors import Forbidden, Unauthorized

MOST_BYTES = 4096  # most bytes of a caller's claims together, as JSON
NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


class Caller(NamedTuple):
    """The name of a caller, and the claims that chains get."""

    owner: str
    claims: Mapping[str, Any] = NO_CLAIMS


def names_of(setting: str) -> tuple[str, ...]:
    """Return the names in a setting, which are separated by commas."""
    return tuple(dict.fromkeys(filter(None, map(str.strip, setting.split(",")))))


def chosen(names: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the named claims whose values are texts, numbers, truth values or lists of texts.

    Raises Forbidden if they are too large: a chain that decides by claims must not get only a part of them.
    """
    told = {name: given[name] for name in names if name in given and _is_plain(given[name])}
    if told and len(sse.dumps(told)) > MOST_BYTES:
        raise Forbidden(f"the claims that this gateway hands to chains are larger than {MOST_BYTES} bytes")
    return told


def of_principal(header: str) -> dict[str, Any]:
    """Return the claims in App Service's header `X-MS-CLIENT-PRINCIPAL`, by their types.

    A claim that occurs twice becomes a list. Raises Unauthorized for a header that the platform does not
    write.
    """
    try:
        principal = json.loads(base64.b64decode(header, validate=True))
        claims = [(claim["typ"], claim["val"]) for claim in principal["claims"]]
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        raise Unauthorized from None
    found: dict[str, list[Any]] = {}
    for name, value in claims:
        if not isinstance(name, str):
            raise Unauthorized
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
