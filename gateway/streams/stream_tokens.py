"""Tokens for one stream: for clients that cannot send headers, EventSource above all. No I/O, no clock."""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

# A reader who was cut off shortly before its stream's end has this long after it to fetch that end. It is
# three of a connection's ages (GATEWAY_STREAM_MAX_AGE_SECONDS), and covers a laptop that sleeps for a moment.
MARGIN_SECONDS = 600.0
SHORT_LIFE = (
    "GATEWAY_TOKEN_SECONDS is shorter than a stream may run: an EventSource that comes back after that time "
    "is shut out"
)
_TOKEN = re.compile(r"([1-9][0-9]{9,11})(?:-([1-9][0-9]{0,8}))?\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Life:
    """How long tokens hold: `seconds` from when each is given, in any case.

    `follows_run`: a token that has passed them still holds as long as its stream has not ended, however long
    it was queued, and `MARGIN_SECONDS` after its end. So an EventSource, which comes back with the same token
    after each rotation of its connection, is never shut out before it has had the terminal event.
    """

    seconds: float
    follows_run: bool
    is_short: bool  # shorter than a stream may run

    def is_over(self, ended_ms: int | None, now_ms: int) -> bool:
        """Whether a token whose own seconds have passed holds no more; `ended_ms`: when its stream ended."""
        if not self.follows_run:
            return True
        return ended_ms is not None and now_ms >= ended_ms + MARGIN_SECONDS * 1000


def life_of(token_seconds: float, max_run: float) -> Life:
    """What the settings say, in seconds; `token_seconds` 0: as long as the stream may run, and the margin."""
    longest = max_run + MARGIN_SECONDS
    return Life(token_seconds or longest, not token_seconds, 0 < token_seconds < longest)


class StreamTokens:
    """Tokens that let their bearer read one stream until they expire, for clients that cannot send headers.

    `<expiry>.<mac>`: seconds of Redis's clock, and HMAC-SHA256 over purpose, id and expiry. The first key
    signs, all of them verify, so that keys are rotated without a token lost. After the tokens of the stream
    were ended, `<expiry>-<ended>.<mac>` is given, with how often they were.
    """

    def __init__(self, keys: Sequence[str], seconds: float) -> None:
        self._keys = [key.encode() for key in keys] or [secrets.token_bytes(32)]
        self._seconds = round(seconds)

    def issue(self, stream_id: str, now_ms: int, ended: int = 0) -> tuple[str, int]:
        """A token, and when it expires, in ms of Redis's clock. `ended`: how often they were ended so far."""
        expiry = now_ms // 1000 + self._seconds
        about = f"{expiry}-{ended}" if ended else f"{expiry}"
        return f"{about}.{self._mac(self._keys[0], stream_id, about)}", expiry * 1000

    def holds(self, stream_id: str, token: str, now_ms: int) -> bool:
        """Whether it is ours, of this stream, and not expired; whether it was ended says the record."""
        read = self.read(stream_id, token)
        return read is not None and now_ms < read[0]

    def read(self, stream_id: str, token: str) -> tuple[int, int] | None:
        """When a token of ours for this stream expires, in ms of Redis's clock, and its `ended`.

        None for any other text. Compared in constant time.
        """
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        about = token.partition(".")[0]
        macs = [self._mac(key, stream_id, about) for key in self._keys]
        ours = sum(hmac.compare_digest(found[3], mac) for mac in macs) > 0  # all of them, found or not
        return (int(found[1]) * 1000, int(found[2] or 0)) if ours else None

    def _mac(self, key: bytes, stream_id: str, about: str) -> str:
        digest = hmac.digest(key, f"holdfast read {stream_id} {about}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
