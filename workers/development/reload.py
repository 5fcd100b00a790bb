"""Reload a chain author's own modules when one of their files has changed. For development only.

The modules are imported again in this process, not in a new process. So the port, the readers, the private
store and the packaged model of `make run` stay as they are. LangChain's import (a second and more) is not
repeated. And `GET /chains`, which this process answers, changes in the same step.

All own modules are removed from `sys.modules` and imported again, not only the changed ones: a module with
`from helper import x` would otherwise keep the old `x`. The reload runs in one step of the event loop, as at
the start. So no code in the loop sees a mix of the old and the new version. If any import fails, everything
is undone. A thread or a connection that a module started when it was imported is not ended, because this
product does not know about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType

from gateway.settings import Settings
from workers.chains import registry
from workers.chains.own import modules_of
from workers.chains.registry import Registry
from workers.development.watched import Watch

_log = logging.getLogger("holdfast.reload")
LOOK_SECONDS = 1.0
# An editor may write a file in several steps, and several files at once. So wait until no file changes any
# more.
CALM_SECONDS, MOST_LOOKS = 0.1, 50
MOST_CHARACTERS = 300  # most characters of an exception's text


class Reload:
    """Waits for the next version of the chains. Create it as soon as the chains are imported.

    `check` is called with each new version. It raises ValueError for a version that cannot be served.
    """

    def __init__(self, settings: Settings, check: Callable[[Registry], object]) -> None:
        self._chains = modules_of(settings)
        self._check = check
        self._watch = Watch(self._chains)

    async def next(self, settings: Settings) -> Registry:
        """Wait until a changed file leads to a new version, and return it. Its chains are not created yet.

        If a version cannot be imported, the log gets one line, with file and line where they are known. The
        previous version then stays.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            # In a thread, because a mounted folder may be slow.
            if files := set(await asyncio.to_thread(self._watch.changed)):
                for _ in range(MOST_LOOKS):
                    await asyncio.sleep(CALM_SECONDS)
                    more = await asyncio.to_thread(self._watch.changed)
                    if not more:
                        break
                    files.update(more)
                if (made := self._again(settings, files)) is not None:
                    return made

    def _again(self, settings: Settings, files: Iterable[str]) -> Registry | None:
        """Import all own modules again and return the new registry.

        If that fails, undo it and return None.
        """
        before = self._watch.modules()
        taken = {name: sys.modules.pop(name) for name in before}
        bring_back = registry.forget(before)
        _forget_compiled(files)
        try:
            made = Registry(settings)
            self._check(made)
        except (Exception, SystemExit) as error:
            failed = self._watch.modules()
            for name in failed:
                del sys.modules[name]
            _put_back(taken)
            bring_back()
            self._watch.note({*failed.values(), *self._places(error)})
            _log.error("the chains are not reloaded: %s", self._told(error))
            return None
        self._watch.note()
        _log.info("the chains are reloaded, as %s has changed", ", ".join(sorted(map(_shown, files))))
        return made

    def _told(self, error: BaseException) -> str:
        """Return the exception as one line, with the last place in the author's own code."""
        text, place = str(error), ""
        if isinstance(error, SyntaxError):
            text, place = error.msg, f" ({error.filename}:{error.lineno})"
        else:
            frames = traceback.extract_tb(error.__traceback__)
            if own := [frame for frame in frames if self._watch.is_own(frame.filename)]:
                place = f" ({own[-1].filename}:{own[-1].lineno})"
        return " ".join(f"{type(error).__name__}: {text}"[:MOST_CHARACTERS].split()) + place

    def _places(self, error: BaseException) -> set[str]:
        """Return the files whose change may fix the error. Some of them may not exist."""
        files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
        if isinstance(error, SyntaxError) and error.filename:
            files.add(error.filename)
        if isinstance(error, ImportError) and error.name:
            part = error.name.replace(".", os.sep)
            files |= {
                os.path.join(root, part + end) for root in sys.path for end in (".py", f"{os.sep}__init__.py")
            }
        return {file for file in map(os.path.abspath, files) if self._watch.is_own(file)}


def _shown(file: str) -> str:
    with contextlib.suppress(ValueError):
        return str(Path(file).relative_to(Path.cwd()))
    return file


def _put_back(modules: Mapping[str, ModuleType]) -> None:
    sys.modules.update(modules)
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        # a namespace package stayed in sys.modules, and may refer to the new module
        if parent in sys.modules:
            setattr(sys.modules[parent], child, module)


def _forget_compiled(files: Iterable[str]) -> None:
    """Make Python compile these files again.

    Python uses a compiled file if the source still has the same size and time, in whole seconds. So Python
    could miss a second change within one second.
    """
    for file in files:
        with contextlib.suppress(OSError, NotImplementedError):
            os.unlink(importlib.util.cache_from_source(file))
    importlib.invalidate_caches()
