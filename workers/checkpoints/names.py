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
_BELOW = "|"  # LangGraph has it between the names of a namespace


def id_of(namespace: str, checkpoint: str) -> str:
    """What a checkpoint is called within its thread."""
    return f"/{quoted(namespace)}/{quoted(checkpoint)}"


def parts_of(identity: str) -> tuple[str, str]:
    """Namespace and checkpoint, of which `id_of` made it."""
    _, namespace, checkpoint = identity.split("/")
    return unquoted(namespace), unquoted(checkpoint)


def within(space: str, namespace: str) -> str:
    """The name of a namespace in a thread that graphs share, each with a space; empty: it is alone."""
    return _BELOW.join(filter(None, (space, namespace)))


def is_within(space: str, name: str) -> bool:
    """Whether it is the name of a namespace of this space."""
    return not space or name == space or name.startswith(space + _BELOW)


def without(space: str, name: str) -> str:
    """The namespace of which `within` made this name."""
    return name[len(space) :].removeprefix(_BELOW) if space else name


def value_of(namespace: str, channel: str, version: Version) -> str:
    """What a channel's value in one version is called. Versions of different types are different ones."""
    return f"/{quoted(namespace)}/{quoted(channel)}/{type(version).__name__}.{quoted(str(version))}"


def channel_of(value: str) -> str:
    """The channel of a value's name."""
    return unquoted(value.split("/")[2])
