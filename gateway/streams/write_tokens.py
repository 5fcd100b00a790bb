"""Write tokens: the bearer of a write token may write its stream, and nothing else. No I/O, no clock.

The form is `<claim>.<mac>`: the claim's own token, and HMAC-SHA256 over it with the stream's own key, which
is stored in the record. So any process can verify that a token was given, whatever its settings.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets

_TOKEN = re.compile(r"([0-9a-f]{32})\.([A-Za-z0-9_-]{43})")


def new_key() -> str:
    """Return a new key for a stream: 256 random bits in hex."""
    return secrets.token_hex(32)


def issue(key: str, claim: str) -> str:
    """Return the write token of a claim. `claim` is the claim's own token."""
    return f"{claim}.{_mac(key, claim)}"


def claim_in(token: str) -> str:
    """Return the claim that a token names, or an empty text if the token does not have the right form."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found else ""


def is_ours(key: str, token: str) -> bool:
    """Whether a token was given for the stream with this key. The comparison takes constant time."""
    found = _TOKEN.fullmatch(token)
    return found is not None and bool(key) and hmac.compare_digest(found[2], _mac(key, found[1]))


def _mac(key: str, claim: str) -> str:
    digest = hmac.digest(key.encode(), f"holdfast write {claim}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
