"""Names of a thread's keys, and of what stands in them: `gateway/lua/thread.lua` says what that is.

Each part of a name is percent-encoded, so any text may be one. Invariant: all keys of a thread have one slot,
and two owners never have the same key.
"""

from __future__ import annotations

from gateway.store.threads import aside_of, is_aside, keys_of, quoted, threads_of, unquoted

__all__ = [
    "aside_of",
    "channel_of",
    "id_of",
    "is_aside",
    "keys_of",
    "parts_of",
    "quoted",
    "threads_of",
    "unquoted",
    "value_of",
]
Version = str | int | float


def id_of(namespace: str, checkpoint: str) -> str:
    """What a checkpoint is called within its thread."""
    return f"/{quoted(namespace)}/{quoted(checkpoint)}"


def parts_of(identity: str) -> tuple[str, str]:
    """Namespace and checkpoint, of which `id_of` made it."""
    _, namespace, checkpoint = identity.split("/")
    return unquoted(namespace), unquoted(checkpoint)


def value_of(namespace: str, channel: str, version: Version) -> str:
    """What a channel's value in one version is called. Versions of different types are different ones."""
    return f"/{quoted(namespace)}/{quoted(channel)}/{type(version).__name__}.{quoted(str(version))}"


def channel_of(value: str) -> str:
    """The channel of a value's name."""
    return unquoted(value.split("/")[2])
