"""Tokens for one stream: for clients that cannot send headers, above all EventSource. No I/O, no clock."""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

# Seconds after its stream's end for which a token stays valid, so that a reader that was cut off shortly
# before the end can still fetch it. This is three maximum ages of a connection
# (GATEWAY_STREAM_MAX_AGE_SECONDS), and covers a laptop that sleeps for a moment.
MARGIN_SECONDS = 600.0
SHORT_LIFE = (
    "GATEWAY_TOKEN_SECONDS is shorter than a stream may run: an EventSource that comes back after that time "
    "is shut out"
)
_TOKEN = re.compile(r"([1-9][0-9]{9,11})(?:-([1-9][0-9]{0,8}))?\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Life:
    """How long tokens are valid: in any case `seconds` after each token is given.

    `follows_run`: after that time, a token stays valid until its stream has ended, however long the stream
    was queued, and for `MARGIN_SECONDS` after the end. So an EventSource, which reconnects with the same
    token after each rotation of its connection, is never shut out before it has had the terminal event.
    """

    seconds: float
    follows_run: bool
    is_short: bool  # shorter than a stream may run

    def is_over(self, ended_ms: int | None, now_ms: int) -> bool:
        """Whether a token is invalid after its own seconds have passed.

        `ended_ms` is the time at which its stream ended, in ms.
        """
        if not self.follows_run:
            return True
        return ended_ms is not None and now_ms >= ended_ms + MARGIN_SECONDS * 1000


def life_of(token_seconds: float, max_run: float) -> Life:
    """Return the life that the settings define, in seconds.

    `token_seconds` 0 means: as long as the stream may run, and the margin.
    """
    longest = max_run + MARGIN_SECONDS
    return Life(token_seconds or longest, not token_seconds, 0 < token_seconds < longest)


class StreamTokens:
    """Tokens that let their bearer read one stream until they expire, for clients that cannot send headers.

    The form is `<expiry>.<mac>`: seconds of Redis's clock, and HMAC-SHA256 over purpose, id and expiry. The
    first key signs, and all keys verify, so that keys can be rotated without losing a token. If the tokens of
    the stream were ended before, the form is `<expiry>-<ended>.<mac>`, where `ended` counts how often.
    """

    def __init__(self, keys: Sequence[str], seconds: float) -> None:
        self._keys = [key.encode() for key in keys] or [secrets.token_bytes(32)]
        self._seconds = round(seconds)

    def issue(self, stream_id: str, now_ms: int, ended: int = 0) -> tuple[str, int]:
        """Return a token, and its expiry in ms of Redis's clock.

        `ended` counts how often the stream's tokens were ended so far.
        """
        expiry = now_ms // 1000 + self._seconds
        about = f"{expiry}-{ended}" if ended else f"{expiry}"
        return f"{about}.{self._mac(self._keys[0], stream_id, about)}", expiry * 1000

    def holds(self, stream_id: str, token: str, now_ms: int) -> bool:
        """Whether the token is ours, for this stream, and not expired.

        Only the record says whether the token was ended.
        """
        read = self.read(stream_id, token)
        return read is not None and now_ms < read[0]

    def read(self, stream_id: str, token: str) -> tuple[int, int] | None:
        """Return the expiry of our token for this stream, in ms of Redis's clock, and its `ended`.

        Returns None for any other text. The comparison takes constant time.
        """
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        about = token.partition(".")[0]
        macs = [self._mac(key, stream_id, about) for key in self._keys]
        # Compare with all keys, even after a match, so that the time is constant.
        ours = sum(hmac.compare_digest(found[3], mac) for mac in macs) > 0
        return (int(found[1]) * 1000, int(found[2] or 0)) if ours else None

    def _mac(self, key: bytes, stream_id: str, about: str) -> str:
        digest = hmac.digest(key, f"holdfast read {stream_id} {about}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
