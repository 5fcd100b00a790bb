"""Exclude from garbage collection the objects that a process has loaded for its whole life."""

from __future__ import annotations

import gc


def settle() -> None:
    """Exclude all objects that exist now from later garbage collections.

    Each full collection would block the process for 30 ms (a web process) or 90 ms (a process with
    LangChain), only to check objects that stay anyway.
    """
    gc.collect()
    gc.freeze()
