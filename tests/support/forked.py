"""Python programs of a test, forked from a process that has imported what they take.

A gateway's imports cost seconds of CPU, its fork a hundredth of that. What runs is what `python -m` would
run: the module's own code as `__main__`, with an environment, arguments and pipes of its own. What only a new
interpreter obeys (LD_PRELOAD, PYTHONHASHSEED and the like) asks for one.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

_CONTEXT: Any = get_context("forkserver") if sys.platform == "linux" else None
if _CONTEXT is not None:
    _CONTEXT.set_forkserver_preload(["tests.support.preloaded"])


async def start(
    module: str,
    *arguments: str,
    environment: Mapping[str, str],
    cwd: Path,
    stderr: IO[bytes],
    anew: bool = False,
) -> Forked | asyncio.subprocess.Process:
    """Run a module as `python -m` does, stdin and stdout pipes; `anew`: in an interpreter of its own."""
    if not anew and _may_be_forked(environment):
        return await Forked.start(module, arguments, environment, cwd=str(cwd), stderr=stderr.fileno())
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=cwd,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )


def _may_be_forked(environment: Mapping[str, str]) -> bool:
    """Whether nothing in this environment is obeyed at an interpreter's start, or at an import, only."""
    theirs = {name for name, value in environment.items() if os.environ.get(name) != value}
    return _CONTEXT is not None and not any(
        name.startswith(("PYTHON", "LD_", "SSL_")) and name != "PYTHONPATH" for name in theirs
    )


class Forked:
    """As much of `asyncio.subprocess.Process` as is asked of it."""

    stdin: IO[bytes]
    _pipe: asyncio.ReadTransport
    stdout: asyncio.StreamReader

    def __init__(self, process: Any) -> None:
        self._process = process
        try:
            self._handle = os.pidfd_open(process.pid)  # means it, though its id should be another's one day
        except ProcessLookupError:
            self._handle = -1
        self._ended = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(process.sentinel, self._has_ended)

    @classmethod
    async def start(
        cls, module: str, arguments: Sequence[str], environment: Mapping[str, str], *, cwd: str, stderr: int
    ) -> Forked:
        """`stderr` is a descriptor that stays the caller's."""
        stdin, to_stdin = os.pipe()
        from_stdout, stdout = os.pipe()
        theirs = [
            Connection(stdin, writable=False),
            Connection(stdout, readable=False),
            Connection(os.dup(stderr), readable=False),
        ]
        given = (module, arguments, dict(environment), cwd, theirs)
        process = _CONTEXT.Process(target=_run, args=given, daemon=True)
        await asyncio.to_thread(process.start)  # the first has to wait for the imports
        for connection in theirs:
            connection.close()
        forked = cls(process)
        forked.stdin = os.fdopen(to_stdin, "wb", buffering=0)
        forked.stdout = asyncio.StreamReader()
        forked._pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(forked.stdout), os.fdopen(from_stdout, "rb")
        )
        return forked

    @property
    def pid(self) -> int:
        pid: int = self._process.pid
        return pid

    @property
    def returncode(self) -> int | None:
        """As of a process that was waited for: None while it runs, the signal's number below zero."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        code: int = await asyncio.shield(self._ended)
        return code

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError when it was seen to end."""
        if self._ended.done():
            raise ProcessLookupError(self.pid)
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):  # it has ended, which is yet to be seen
                signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Let go of its pipes."""
        self.stdin.close()
        self._pipe.close()

    def _has_ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._process.join()
        if self._handle >= 0:
            os.close(self._handle)
        self._ended.set_result(self._process.exitcode)


def _run(
    module: str, arguments: Sequence[str], environment: dict[str, str], cwd: str, pipes: list[Connection]
) -> None:
    """In the child: take its place, and be that program."""
    for number, pipe in enumerate(pipes):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - these know what kind of file they write to
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    os.chdir(cwd)
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [cwd, *paths, *(path for path in sys.path if path != cwd)]
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
