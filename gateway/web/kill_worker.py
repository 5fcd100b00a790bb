"""A tool for developers with their own `python -m gateway`: kill the worker of a stream, and watch the retry.

Web and workers share this process, so no process is killed. The effects are those of a killed process: the
model's call ends, nothing more is written, the lease is not released and the delivery is not settled. The
path is served only on loopback, where callers are not authenticated. On any other address this path does not
exist.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from gateway.protocol.errors import Invalid
from gateway.protocol.sse import dumps
from gateway.streams.service import Gateway
from gateway.streams.start import as_it_is, read_json
from gateway.web.answers import answered
from gateway.web.headers import SECURE


@answered("/dev/kill-worker")
async def kill_worker(gateway: Gateway, request: Request) -> Response:
    """POST /dev/kill-worker with `{"id"}`.

    The answer says whether a worker was at work on the stream, and the length of the lease in seconds.
    """
    given = await read_json(request, gateway.bounds, as_it_is)
    stream_id = given.get("id") if isinstance(given, dict) else None
    if not isinstance(stream_id, str):
        raise Invalid("id", "must be a stream's id")
    writers = [task for task in asyncio.all_tasks() if task.get_name() == f"write-{stream_id}"]
    # Without its writing task, an attempt ends like an attempt whose process was killed.
    for task in writers:
        task.cancel()
    body = dumps({"killed": bool(writers), "lease_seconds": gateway.settings.lease})
    headers = {"cache-control": "no-store", **SECURE}
    return Response(body, headers=headers, media_type="application/json")
