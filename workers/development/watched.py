"""Find out which files of a chain author's own modules have changed since the last check.

Own modules are those below the current folder, and those next to the modules that GATEWAY_CHAINS names.
Modules of Python, of installed packages and of this product are not own modules. Files are checked with
`stat`. This works on every system and on mounted folders, and it needs no other package.
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
    """The own modules of a process.

    `chains`: the modules of GATEWAY_CHAINS, which must already be imported.
    """

    def __init__(self, chains: Sequence[str]) -> None:
        self._roots = _within(root for root in (Path.cwd(), *map(_root, chains)) if root != root.parent)
        # A virtual environment may be below the current folder. So may this product, in its own checkout.
        python = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
        ours = [Path(__file__).absolute().parents[2] / name for name in _PRODUCT]
        self._foreign = _within([*python, *ours, *(path.resolve() for path in (*python, *ours))])
        self._stamps: dict[str, Stamp | None] = {}
        self._also: frozenset[str] = frozenset()
        self.note()

    def is_own(self, file: str) -> bool:
        """Return whether this file is one of the author's own modules."""
        return (
            file.endswith(".py")
            and file.startswith(self._roots)
            and not file.startswith(self._foreign)
            and _INSTALLED.isdisjoint(Path(file).parts)
        )

    def modules(self) -> dict[str, str]:
        """Return the own modules that are imported now: module name -> file."""
        found = {}
        for name, module in sys.modules.copy().items():
            # Do not use getattr: it would load modules that load lazily.
            file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
            if name != "__main__" and isinstance(file, str) and self.is_own(os.path.abspath(file)):
                found[name] = os.path.abspath(file)
        return found

    def note(self, also: Iterable[str] = ()) -> None:
        """Watch the modules imported since the last check, and watch `also` until the next call of `note`.

        The files in `also` need not exist yet.
        """
        self._also = frozenset(also)
        for file in self._files():
            if file not in self._stamps:
                self._stamps[file] = _stamp(file)

    def changed(self) -> list[str]:
        """Return the files that have changed since the last check.

        Files that are new in this check are not returned.
        """
        before, self._stamps = self._stamps, {file: _stamp(file) for file in self._files()}
        return [file for file, stamp in self._stamps.items() if file in before and before[file] != stamp]

    def _files(self) -> list[str]:
        """Return the watched files: at most MOST_FILES, those that were imported first."""
        return [*dict.fromkeys([*self._also, *self.modules().values()])][:MOST_FILES]


def _within(folders: Iterable[Path]) -> tuple[str, ...]:
    """Return the beginnings of the paths of files in these folders."""
    return tuple({f"{folder}{os.sep}" for folder in folders})


def _root(module: str) -> Path:
    """Return the folder from which a module's outermost package is imported."""
    outermost = module.partition(".")[0]
    spec = getattr(sys.modules.get(outermost), "__spec__", None)
    if spec is None or not spec.origin:  # a namespace package
        places = list(getattr(spec, "submodule_search_locations", None) or ())
        return Path(places[0]).absolute().parent if places else Path.cwd()
    file = Path(spec.origin).absolute()
    return file.parent.parent if spec.submodule_search_locations is not None else file.parent


def _stamp(file: str) -> Stamp | None:
    """Return a value that changes when the file changes, or None when the file does not exist."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
