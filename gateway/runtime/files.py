"""Find the folders that are installed with the code: `web`, `docs` and `infra`.

In the wheel they are inside the package `gateway`. In a checkout, and in an app deployed from a checkout,
they are next to this package.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """Return the folder of this name. The caller must check whether it exists."""
    installed = _HERE / "_files" / name
    return installed if installed.is_dir() else _HERE.parent / name
