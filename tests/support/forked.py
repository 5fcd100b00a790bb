"""Run Python programs of a test by a fork of a process that has already imported their modules.

The imports of a gateway cost seconds of CPU; a fork costs a hundredth of that. The forked process runs what
`python -m` would run: the module's code as `__main__`, with its own environment, arguments and pipes.
Settings that only a new interpreter obeys (LD_PRELOAD, PYTHONHASHSEED and similar) need a new interpreter.
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
    """Run a module as `python -m` does, with pipes for stdin and stdout. `anew`: use a new interpreter, not a
    fork."""
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
    """Return whether a fork obeys this environment, that is, no variable acts only at interpreter start or
    import."""
    theirs = {name for name, value in environment.items() if os.environ.get(name) != value}
    return _CONTEXT is not None and not any(
        name.startswith(("PYTHON", "LD_", "SSL_")) and name != "PYTHONPATH" for name in theirs
    )


class Forked:
    """A forked process, with the part of `asyncio.subprocess.Process` that the tests use."""

    stdin: IO[bytes]
    _pipe: asyncio.ReadTransport
    stdout: asyncio.StreamReader

    def __init__(self, process: Any) -> None:
        self._process = process
        try:
            self._handle = os.pidfd_open(process.pid)  # stays valid for this process if its pid is reused
        except ProcessLookupError:
            self._handle = -1
        self._ended = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(process.sentinel, self._has_ended)

    @classmethod
    async def start(
        cls, module: str, arguments: Sequence[str], environment: Mapping[str, str], *, cwd: str, stderr: int
    ) -> Forked:
        """Fork the process. `stderr` is a file descriptor that still belongs to the caller."""
        stdin, to_stdin = os.pipe()
        from_stdout, stdout = os.pipe()
        theirs = [
            Connection(stdin, writable=False),
            Connection(stdout, readable=False),
            Connection(os.dup(stderr), readable=False),
        ]
        given = (module, arguments, dict(environment), cwd, theirs)
        process = _CONTEXT.Process(target=_run, args=given, daemon=True)
        await asyncio.to_thread(process.start)  # the first start waits for the imports
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
        """Return the exit code as `Process.returncode` does: None while it runs, the negative signal number
        if killed."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        code: int = await asyncio.shield(self._ended)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal. Raises ProcessLookupError if the end of the process was already observed."""
        if self._ended.done():
            raise ProcessLookupError(self.pid)
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):  # it has ended, but its end was not observed yet
                signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close the pipes of the process."""
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
    """Run in the child: set up its environment and pipes, and run the program."""
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
