"""The names of a thread's Redis keys, and of the entries in them (described in `gateway/lua/thread.lua`).

Each part of a name is percent-encoded, so a part may be any text. Invariants: all keys of a thread are in one
slot, and two owners never have the same key.
"""

from __future__ import annotations

from gateway.store.threads import aside_of, is_aside, keys_of, quoted, threads_of, unquoted

__all__ = [
    "aside_of",
    "channel_of",
    "id_of",
    "is_aside",
    "is_within",
    "keys_of",
    "parts_of",
    "quoted",
    "threads_of",
    "unquoted",
    "value_of",
    "within",
    "without",
]
Version = str | int | float
_BELOW = "|"  # LangGraph puts this character between the parts of a namespace name.


def id_of(namespace: str, checkpoint: str) -> str:
    """Return the name of a checkpoint within its thread."""
    return f"/{quoted(namespace)}/{quoted(checkpoint)}"


def parts_of(identity: str) -> tuple[str, str]:
    """Return the namespace and the checkpoint from which `id_of` made this name."""
    _, namespace, checkpoint = identity.split("/")
    return unquoted(namespace), unquoted(checkpoint)


def within(space: str, namespace: str) -> str:
    """Return the name of a namespace in a thread that several graphs share. Each graph has its own `space`.

    An empty `space` means that the graph has the thread alone.
    """
    return _BELOW.join(filter(None, (space, namespace)))


def is_within(space: str, name: str) -> bool:
    """Return whether `name` is the name of a namespace of this space."""
    return not space or name == space or name.startswith(space + _BELOW)


def without(space: str, name: str) -> str:
    """Return the namespace from which `within` made this name."""
    return name[len(space) :].removeprefix(_BELOW) if space else name


def value_of(namespace: str, channel: str, version: Version) -> str:
    """Return the name of a channel's value in one version.

    Versions of different types have different names.
    """
    return f"/{quoted(namespace)}/{quoted(channel)}/{type(version).__name__}.{quoted(str(version))}"


def channel_of(value: str) -> str:
    """Return the channel from the name of a value."""
    return unquoted(value.split("/")[2])
