"""The meaning of a server's refusals: it cannot run the command now, or another server is the primary.

A managed Redis has one host name. At a planned failover, new connections to this name reach the new primary.
The old primary becomes a replica and keeps its connections. When a server answers like a replica, its
connection is ended, and a new connection is made by the name. The words of refusals are those of Redis's
source (`server.c`, `blocked.c`, `acl.c`).
"""

from __future__ import annotations

import re
from typing import Any

from redis import exceptions as redis_errors

# The server is there and cannot run the command now. A missing permission is included, because it may come
# back: during a rotation of permissions, the old ones are removed first.
_UNAVAILABLE_ERRORS = (
    redis_errors.ReadOnlyError,
    redis_errors.OutOfMemoryError,
    redis_errors.ClusterDownError,
    redis_errors.MovedError,
    redis_errors.TryAgainError,
    redis_errors.NoPermissionError,
    redis_errors.AuthenticationError,
    redis_errors.BusyLoadingError,
)
# The same refusals by their words, and refusals that have no class. The word is at the beginning of the text,
# or after the words of a script's error: before Redis 7 `ERR Error running script (call to f_…):
# @user_script:9: -OOM command …`.
UNAVAILABLE_WORDS = re.compile(
    r"(?:^|\s-?)(?:MISCONF|NOREPLICAS|MASTERDOWN|OOM|READONLY|LOADING|MOVED|CLUSTERDOWN|TRYAGAIN|BUSY|NOPERM"
    r"|NOAUTH)\s"
    r"|^UNBLOCKED force unblock"
    # NOPERM of a command, key or channel in a script, Redis 7.0
    r"|^The user executing the script can't "
)
_ELSEWHERE_ERRORS = (
    redis_errors.ReadOnlyError,
    redis_errors.MasterDownError,
    redis_errors.BusyLoadingError,
)
_ELSEWHERE_WORDS = re.compile(
    r"(?:^|\s-?)(?:READONLY|MASTERDOWN|LOADING|NOREPLICAS)\s|^UNBLOCKED force unblock"
)


def is_unavailable(error: Exception) -> bool:
    """Whether this error means that the server is there but cannot run the command now."""
    return isinstance(error, _UNAVAILABLE_ERRORS) or bool(UNAVAILABLE_WORDS.search(str(error)))


def is_elsewhere(error: object) -> bool:
    """Whether this is the answer of a server that may not be the primary any more.

    Such answers are READONLY, MASTERDOWN, LOADING, NOREPLICAS, and the end of a blocked read by a change of
    role. NOREPLICAS is included because a primary that has lost its replicas may have been replaced.
    """
    return isinstance(error, Exception) and (
        isinstance(error, _ELSEWHERE_ERRORS) or bool(_ELSEWHERE_WORDS.search(str(error)))
    )


def is_forbidden(error: object) -> bool:
    """Whether the user of this connection lacks a permission (NOPERM), also for a command in a script."""
    return isinstance(error, redis_errors.NoPermissionError) or (
        isinstance(error, redis_errors.ResponseError)
        and bool(re.search(r"(?:^|\s-?)NOPERM\s|^The user executing the script", str(error)))
    )


def word_of(error: object) -> str:
    """Return the refusal's first word, for the log. The rest of the text may quote names and keys."""
    if is_forbidden(error):
        return "NOPERM"
    found = re.search(r"(?:^|\s-?)([A-Z]{4,})\s", str(error))
    code = found[1] if found else getattr(error, "status_code", None)
    return code if isinstance(code, str) else type(error).__name__


def told_by_hello(answer: Any, name: bytes) -> bytes:
    """Return a value from the answer to HELLO (RESP2: a flat list of names and values).

    Returns an empty text if the value is missing.
    """
    if not isinstance(answer, list):
        return b""
    for index in range(0, len(answer) - 1, 2):
        if answer[index] == name and isinstance(answer[index + 1], bytes):
            value: bytes = answer[index + 1]
            return value
    return b""
