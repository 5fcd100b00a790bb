"""Answer HTTP/1.0 requests. HTTP/1.0 has no chunked encoding, so the end of the connection ends the body.

See RFC 9112, 6.1 and 6.3.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


async def undelimited(
    cycle: RequestResponseCycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run the application and send its answer without chunks.

    If the body stays incomplete, the connection is reset, so that the client notices it.
    """
    told = False  # whether the header has the body's length

    async def plain(message: Message) -> None:
        nonlocal told
        if message["type"] == "http.response.start":
            headers = [field for field in message.get("headers", []) if field[0] != b"transfer-encoding"]
            message = {**message, "headers": headers}
            told = any(name == b"content-length" for name, _ in headers)
            if not told:
                cycle.chunked_encoding = False  # uvicorn decides this itself only if it is None
        elif not told:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    try:
        await app(scope, receive, plain)
    finally:
        if cycle.response_started and not cycle.response_complete and not cycle.disconnected:
            _reset(cycle.transport)


def _reset(transport: asyncio.Transport) -> None:
    """Cut the connection by RST.

    `abort` alone would send FIN, which would look like a complete HTTP/1.0 body.
    """
    found = transport.get_extra_info("socket")
    if found is not None:
        found.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        )
    transport.abort()
