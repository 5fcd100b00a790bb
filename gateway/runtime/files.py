"""Where the folders are that ship beside the code: `web`, `docs` and `infra`.

In the wheel they stand in the package `gateway`. In a checkout, and in an app that is deployed from one, they
stand beside it.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """The folder of this name; whether it is there is the caller's to see."""
    installed = _HERE / "_files" / name
    return installed if installed.is_dir() else _HERE.parent / name
