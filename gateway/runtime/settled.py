"""What a process has loaded for good, out of the way of the collection of garbage."""

from __future__ import annotations

import gc


def settle() -> None:
    """No collection looks again at what there is by now.

    A full one would stop everybody for 30 ms in a web process, for 90 ms in one that has LangChain: at each
    of them, for objects that stay anyway.
    """
    gc.collect()
    gc.freeze()
