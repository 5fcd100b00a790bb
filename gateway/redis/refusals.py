"""What a server's refusals mean: it cannot do it now, or it is not the server to ask any more.

A managed Redis has one name. At a planned failover the name leads new connections to the new primary, while
the old primary becomes a replica of it and keeps its connections. What such a server answers is a reason to
leave it and to ask the name again. The words are those of Redis's source (`server.c`, `blocked.c`, `acl.c`).
"""

from __future__ import annotations

import re
from typing import Any

from redis import exceptions as redis_errors

# A server is there and cannot do it now. Permissions may come back: whoever rotates them takes them first.
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
# The same, and those without a class, at the beginning, or where a script relays it: before Redis 7
# `ERR Error running script (call to f_…): @user_script:9: -OOM command not allowed …`.
UNAVAILABLE_WORDS = re.compile(
    r"(?:^|\s-?)(?:MISCONF|NOREPLICAS|MASTERDOWN|OOM|READONLY|LOADING|MOVED|CLUSTERDOWN|TRYAGAIN|BUSY|NOPERM"
    r"|NOAUTH)\s"
    r"|^UNBLOCKED force unblock"
    r"|^The user executing the script can't "  # NOPERM of a command, key or channel in a script, Redis 7.0
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
    """Whether a server says with this that it is there but cannot do it now."""
    return isinstance(error, _UNAVAILABLE_ERRORS) or bool(UNAVAILABLE_WORDS.search(str(error)))


def is_elsewhere(error: object) -> bool:
    """Whether it is the answer of a server that is perhaps not the primary any more.

    READONLY, MASTERDOWN, LOADING, a blocked read that a change of role has ended, and NOREPLICAS: a primary
    without its replicas may be one that others have replaced.
    """
    return isinstance(error, Exception) and (
        isinstance(error, _ELSEWHERE_ERRORS) or bool(_ELSEWHERE_WORDS.search(str(error)))
    )


def is_forbidden(error: object) -> bool:
    """Whether the user of this connection lacks a permission: NOPERM, also from within a script."""
    return isinstance(error, redis_errors.NoPermissionError) or (
        isinstance(error, redis_errors.ResponseError)
        and bool(re.search(r"(?:^|\s-?)NOPERM\s|^The user executing the script", str(error)))
    )


def word_of(error: object) -> str:
    """The refusal's word, for the log. What stands around it may quote names and keys."""
    if is_forbidden(error):
        return "NOPERM"
    found = re.search(r"(?:^|\s-?)([A-Z]{4,})\s", str(error))
    code = found[1] if found else getattr(error, "status_code", None)
    return code if isinstance(code, str) else type(error).__name__


def told_by_hello(answer: Any, name: bytes) -> bytes:
    """A value of HELLO's answer (RESP2: a flat list of names and values); empty where it has none."""
    if not isinstance(answer, list):
        return b""
    for index in range(0, len(answer) - 1, 2):
        if answer[index] == name and isinstance(answer[index + 1], bytes):
            value: bytes = answer[index + 1]
            return value
    return b""
