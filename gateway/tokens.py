"""Tokens for one stream: for clients that cannot send headers, EventSource above all. No I/O, no clock."""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Sequence

_TOKEN = re.compile(r"([1-9][0-9]{9,11})\.([A-Za-z0-9_-]{43})")


class StreamTokens:
    """Tokens that let their bearer read one stream until they expire, for clients that cannot send headers.

    `<expiry>.<mac>`: seconds of Redis's clock, and HMAC-SHA256 over purpose, id and expiry. The first key
    signs, all of them verify, so that keys are rotated without a token lost.
    """

    def __init__(self, keys: Sequence[str], seconds: float) -> None:
        self._keys = [key.encode() for key in keys] or [secrets.token_bytes(32)]
        self._seconds = round(seconds)

    def issue(self, stream_id: str, now_ms: int) -> tuple[str, int]:
        """A token, and when it expires, in ms of Redis's clock."""
        expiry = now_ms // 1000 + self._seconds
        return f"{expiry}.{self._mac(self._keys[0], stream_id, expiry)}", expiry * 1000

    def holds(self, stream_id: str, token: str, now_ms: int) -> bool:
        """Whether it is ours, of this stream, and not expired; compared in constant time."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return False
        expiry = int(found[1])
        macs = [self._mac(key, stream_id, expiry) for key in self._keys]
        ours = sum(hmac.compare_digest(found[2], mac) for mac in macs) > 0  # all of them, found or not
        return ours and now_ms < expiry * 1000

    def _mac(self, key: bytes, stream_id: str, expiry: int) -> str:
        digest = hmac.digest(key, f"holdfast read {stream_id} {expiry}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
