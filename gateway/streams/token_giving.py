"""Give and end the tokens of a stream, for its owner."""

from __future__ import annotations

from typing import Any

from gateway import protocol
from gateway.streams.service import Gateway


async def give(gateway: Gateway, stream_id: str, owner: str, base: str = "") -> dict[str, Any]:
    """Return a token that lets its bearer read this stream, at least until `expires_at`.

    `base`: the path below which the gateway is reached, for the URL. Raises StreamNotFound or StreamGone.
    """
    record = await gateway.find(stream_id, owner)
    now_ms = await gateway.parts.log.now_ms()
    token, expires_ms = gateway.tokens.issue(record.id, now_ms, record.tokens_ended)
    url = f"{base}/stream/{record.id}?token={token}"
    return {"token": token, "expires_at": protocol.iso(expires_ms), "stream": url}


async def end(gateway: Gateway, stream_id: str, owner: str) -> None:
    """End all tokens of a stream that were given so far. A connected reader stays connected.

    Raises StreamNotFound or StreamGone.
    """
    record = await gateway.find(stream_id, owner)
    await gateway.parts.log.end_tokens(record.id)
