"""Names of a thread's keys, and of what stands in them: `gateway/lua/thread.lua` says what that is.

Each part of a name is percent-encoded, so any text may be one. Invariant: all keys of a thread have one slot,
and two owners never have the same key.
"""

from __future__ import annotations

import hashlib
import json
from urllib.parse import quote, unquote

Version = str | int | float


def quoted(part: str) -> str:
    """This part of a name, without slash, space and colon."""
    return quote(part, safe="", errors="surrogatepass")


def unquoted(part: str) -> str:
    """The text of which `quoted` made it."""
    return unquote(part, errors="surrogatepass")


def keys_of(owner: str, thread: str) -> list[str]:
    """The keys of a thread, as the script takes them."""
    tag = _tag(owner, thread)
    return [f"{tag}:saved", f"{tag}:names", f"{tag}:order"]


def threads_of(owner: str) -> str:
    """The key of an owner's index of threads."""
    return f"{_tag(owner)}:threads"


def aside_of(thread: str) -> str:
    """The thread that keeps what stood in this one before a run wrote to it. No caller can name it."""
    return f"{thread}\0before"


def is_aside(thread: str) -> bool:
    """Whether this is such a one."""
    return thread.endswith("\0before")


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


def _tag(*parts: str) -> str:
    """A hash tag, which decides the slot."""
    return f"{{{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}}}"
