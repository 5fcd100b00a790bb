"""The files of a chain author's own modules, and which of them have changed since the last look.

Own modules are those below the current folder, and those beside the modules that GATEWAY_CHAINS names.
Modules of Python, of installed packages and of this product are not. Files are looked at by `stat`: on every
system, over mounted folders too, and without a package more.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

MOST_FILES = 1000
Stamp = tuple[int, int, int]
_PRODUCT = ("gateway", "holdfast_gateway", "workers")
_INSTALLED = frozenset({"site-packages", "dist-packages"})


class Watch:
    """The own modules of a process. `chains`: the modules of GATEWAY_CHAINS, which are imported already."""

    def __init__(self, chains: Sequence[str]) -> None:
        self._roots = _within(root for root in (Path.cwd(), *map(_root, chains)) if root != root.parent)
        # A virtual environment may stand below the current folder, as this product does in its checkout.
        python = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
        ours = [Path(__file__).absolute().parents[1] / name for name in _PRODUCT]
        self._foreign = _within([*python, *ours, *(path.resolve() for path in (*python, *ours))])
        self._stamps: dict[str, Stamp | None] = {}
        self._also: frozenset[str] = frozenset()
        self.note()

    def is_own(self, file: str) -> bool:
        """Whether this file is a module of the author's own."""
        return (
            file.endswith(".py")
            and file.startswith(self._roots)
            and not file.startswith(self._foreign)
            and _INSTALLED.isdisjoint(Path(file).parts)
        )

    def modules(self) -> dict[str, str]:
        """The own modules that are imported now, by name, and their files."""
        found = {}
        for name, module in sys.modules.copy().items():
            # Not by getattr: modules that load lazily would load then.
            file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
            if name != "__main__" and isinstance(file, str) and self.is_own(os.path.abspath(file)):
                found[name] = os.path.abspath(file)
        return found

    def note(self, also: Iterable[str] = ()) -> None:
        """Look from now on at what has been imported since the last look, and until the next call at `also`.

        These files need not be there yet.
        """
        self._also = frozenset(also)
        for file in self._files():
            if file not in self._stamps:
                self._stamps[file] = _stamp(file)

    def changed(self) -> list[str]:
        """The files that have changed since the last look; what is new to this look is none of them."""
        before, self._stamps = self._stamps, {file: _stamp(file) for file in self._files()}
        return [file for file, stamp in self._stamps.items() if file in before and before[file] != stamp]

    def _files(self) -> list[str]:
        """What is looked at: MOST_FILES, those that were imported first."""
        return [*dict.fromkeys([*self._also, *self.modules().values()])][:MOST_FILES]


def _within(folders: Iterable[Path]) -> tuple[str, ...]:
    """How the path of a file within one of these folders begins."""
    return tuple({f"{folder}{os.sep}" for folder in folders})


def _root(module: str) -> Path:
    """The folder from which a module's outermost package is imported."""
    outermost = module.partition(".")[0]
    spec = getattr(sys.modules.get(outermost), "__spec__", None)
    if spec is None or not spec.origin:  # a namespace package
        places = list(getattr(spec, "submodule_search_locations", None) or ())
        return Path(places[0]).absolute().parent if places else Path.cwd()
    file = Path(spec.origin).absolute()
    return file.parent.parent if spec.submodule_search_locations is not None else file.parent


def _stamp(file: str) -> Stamp | None:
    """What changes with a file; None where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
