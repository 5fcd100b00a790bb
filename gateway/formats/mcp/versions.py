"""MCP's versions: those that begin by `initialize`, and the one whose calls stand alone. No I/O."""

from __future__ import annotations

from typing import Any

from gateway.protocol.errors import HoldfastError

HEADER = "mcp-protocol-version"
ALONE = "2026-07-28"  # of it on a result says what kind it is, and how long it may be kept
HANDSHAKES = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
UNNAMED = "2025-03-26"  # of a request without the header, as the specification has it
VERSIONS = (*HANDSHAKES, ALONE)
SERVER = {"name": "holdfast", "title": "Holdfast", "version": "1"}
CAPABILITIES: dict[str, Any] = {"tools": {"listChanged": False}}


class NoProtocolVersion(HoldfastError):
    """This version of MCP is not served here."""

    status = 422
    code = "no_version"


def version_of(given: str | None) -> str:
    """That of a request, by its header. Raises NoProtocolVersion."""
    version = UNNAMED if given is None else given.strip()
    if version not in VERSIONS:
        raise NoProtocolVersion
    return version


def initialized(asked: Any) -> dict[str, Any]:
    """The answer to `initialize`: the client's version, or else the newest that has a handshake."""
    version = asked if asked in HANDSHAKES else HANDSHAKES[-1]
    return {"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": SERVER}


def discovered() -> dict[str, Any]:
    """The answer to `server/discover`."""
    return {
        "supportedVersions": list(VERSIONS),
        "capabilities": CAPABILITIES,
        "_meta": {"io.modelcontextprotocol/serverInfo": SERVER},
    }


def complete(value: dict[str, Any], version: str, *, kept_ms: int | None = None) -> dict[str, Any]:
    """A result as this version has it; `kept_ms`: how long a client may keep it, for itself alone."""
    if version != ALONE:
        return value
    cached = {} if kept_ms is None else {"ttlMs": kept_ms, "cacheScope": "private"}
    return {**value, "resultType": "complete", **cached}
