"""What AG-UI's clients are told before a run's events: errors, and where the stream is.

`HttpAgent` reads an error's body as JSON if its type is `application/json`, and hands it on as `payload`.
"""

from __future__ import annotations

from starlette.responses import Response

from gateway.protocol.errors import HoldfastError
from gateway.web.answers import json_answer, problem


class ChainNotFound(HoldfastError):
    """There is no such chain: GET /chains lists all."""

    status = 404
    code = "chain_not_found"


def refused(error: HoldfastError) -> Response:
    """Our problem document, with `message`, as plain JSON."""
    kept = {
        name: value
        for name, value in problem(error).headers.items()
        if name not in ("content-type", "content-length")
    }
    return json_answer({"message": error.detail, **error.problem()}, error.status, kept)
