"""Takes a chain author's own modules anew when a file of theirs has changed: for development alone.

The modules are imported again in this process, not in a new one. So the port, the readers, the private store
and the packaged model of `make run` stay as they are, LangChain's import (a second and more) is not paid for
again, and `GET /chains`, which this process answers, follows in the same step.
All own modules are taken out of `sys.modules` and imported again, not the changed ones alone: a module that
says `from helper import x` would keep the old `x`. It is done in one turn of the event loop, as at the start,
so no code that runs there meets one half of the old version and one half of the new. What fails is undone
whole. What a module has begun when it was imported (a thread, a connection) is not ended: nobody knows of it.
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
# An editor may write a file in several steps, and several files at once: wait until nothing changes any more.
CALM_SECONDS, MOST_LOOKS = 0.1, 50
MOST_CHARACTERS = 300  # of an exception's text


class Reload:
    """Waits for the next version of the chains. Make it as soon as the chains are imported.

    `check` is called with each new version and raises ValueError for one that cannot be served.
    """

    def __init__(self, settings: Settings, check: Callable[[Registry], object]) -> None:
        self._chains = modules_of(settings)
        self._check = check
        self._watch = Watch(self._chains)

    async def next(self, settings: Settings) -> Registry:
        """Wait until a changed file has made another version, and give it; its chains are yet to be made.

        A version that cannot be imported is told in one line, with file and line where they are known, and
        the version before stays.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            # In a thread, as a mounted folder may take its time.
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
        """Import all own modules again; None, and everything is as it was, where that cannot be done."""
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
        """The exception in one line, with the last place in the author's own code."""
        text, place = str(error), ""
        if isinstance(error, SyntaxError):
            text, place = error.msg, f" ({error.filename}:{error.lineno})"
        else:
            frames = traceback.extract_tb(error.__traceback__)
            if own := [frame for frame in frames if self._watch.is_own(frame.filename)]:
                place = f" ({own[-1].filename}:{own[-1].lineno})"
        return " ".join(f"{type(error).__name__}: {text}"[:MOST_CHARACTERS].split()) + place

    def _places(self, error: BaseException) -> set[str]:
        """The files by whose change the error may go away, also such as are not there."""
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
        if parent in sys.modules:  # a namespace package was not taken out, and may have the new one
            setattr(sys.modules[parent], child, module)


def _forget_compiled(files: Iterable[str]) -> None:
    """Have Python compile these files again.

    It takes a compiled file for the right one by the source's size and its time in whole seconds, so a second
    change within a second could be missed.
    """
    for file in files:
        with contextlib.suppress(OSError, NotImplementedError):
            os.unlink(importlib.util.cache_from_source(file))
    importlib.invalidate_caches()
