"""Tokens of a stream, as its owner gives them away and ends them."""

from __future__ import annotations

from typing import Any

from gateway import protocol
from gateway.streams.service import Gateway


async def give(gateway: Gateway, stream_id: str, owner: str, base: str = "") -> dict[str, Any]:
    """A token that lets whoever has it read this stream, at least until `expires_at`.

    `base`: below which path the gateway is asked, for the URL. Raises StreamNotFound or StreamGone.
    """
    record = await gateway.find(stream_id, owner)
    now_ms = await gateway.parts.log.now_ms()
    token, expires_ms = gateway.tokens.issue(record.id, now_ms, record.tokens_ended)
    url = f"{base}/stream/{record.id}?token={token}"
    return {"token": token, "expires_at": protocol.iso(expires_ms), "stream": url}


async def end(gateway: Gateway, stream_id: str, owner: str) -> None:
    """End all tokens of a stream that were given so far; a reader that is connected stays so.

    Raises StreamNotFound or StreamGone.
    """
    record = await gateway.find(stream_id, owner)
    await gateway.parts.log.end_tokens(record.id)
