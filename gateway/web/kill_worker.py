"""What a developer may do to the own `python -m gateway`: kill the worker of a stream, and watch it go on.

Web and workers share that process, so no process is killed. What a death leaves behind is left behind: the
model's call ends, nothing more is written, the lease is not released and the delivery not settled. Served
on loopback alone, where nobody has to say who asks; anywhere else there is no such path.
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
    """POST /dev/kill-worker with `{"id"}`: whether one was at work, and the lease in seconds."""
    given = await read_json(request, gateway.bounds, as_it_is)
    stream_id = given.get("id") if isinstance(given, dict) else None
    if not isinstance(stream_id, str):
        raise Invalid("id", "must be a stream's id")
    writers = [task for task in asyncio.all_tasks() if task.get_name() == f"write-{stream_id}"]
    for task in writers:  # without its pen an attempt ends like one whose process is gone
        task.cancel()
    body = dumps({"killed": bool(writers), "lease_seconds": gateway.settings.lease})
    headers = {"cache-control": "no-store", **SECURE}
    return Response(body, headers=headers, media_type="application/json")
