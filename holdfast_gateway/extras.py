"""Explain failed imports: an extra is missing, or another module hides one of ours."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

OURS = ("gateway", "holdfast_gateway", "workers")


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Wrap imports that need the packages of an extra.

    If a package is missing that is not one of ours, raise an ImportError that says what to install. Other
    errors are not changed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = error.name or ""
        if name.partition(".")[0] in OURS:
            raise
        line = f'pip install "holdfast-gateway[{extra}]"'
        raise ImportError(
            f"{what} needs the package {name}, which is not installed: {line}", name=name
        ) from None


def check_own() -> None:
    """Raise ImportError if another package named `gateway` or `workers` would be imported instead of ours.

    Both are top-level packages. So a file or folder with this name hides them if Python finds it first.
    """
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for name in ("gateway", "workers"):
        loaded = sys.modules.get(name)
        spec = getattr(loaded, "__spec__", None) or (None if loaded else importlib.util.find_spec(name))
        found = (spec.origin if spec else None) or getattr(loaded, "__file__", None)
        if found is None or _folder(found) != os.path.realpath(os.path.join(root, name)):
            what = found or f"a folder {name}, without __init__.py,"
            raise ImportError(
                f"{what} hides the package {name} of holdfast-gateway: give that file or folder another name",
                name=name,
                path=found,
            )


def _folder(file: str) -> str:
    return os.path.realpath(os.path.dirname(file) if os.path.basename(file) == "__init__.py" else file)
