"""The worker from the host's side: a process that the host starts, calls, reads from and ends.

The calls and their order are the host's: init (which imports and indexes the app and starts the runtime's own
HTTP server), metadata, load, then one invocation after another. The worker's printed output is its console
log, which the host records line by line; its log records come separately.

Invariant: one process for one Worker, which ends with the host.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from .bindings import BindingError, Function, read_function
from .channel import opened, packed, receive
from .worker_process import LOOPBACK, run

__all__ = ["LOOPBACK", "IndexingError", "InvocationError", "Spawned", "Worker", "spawn"]

START_LIMIT_S = 30
CONSOLE = "[console] "
LINE_LIMIT_BYTES = 1024 * 1024
LOG = logging.getLogger(__name__)


class IndexingError(RuntimeError):
    """The runtime could not index the app; the text is the runtime's own."""


class InvocationError(RuntimeError):
    """A function failed; `error_type` is the name of the exception it raised."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.error_type = message.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Spawned:
    """A worker process before its first call: its process id, and the host's ends of its pipes."""

    pid: int
    commands: int
    answers: int
    console: int


def spawn(app_dir: Path) -> Spawned:
    """Start the worker's process. Call this while this process has one thread and no event loop."""
    host = os.getpid()
    commands, to_commands = os.pipe()
    from_answers, answers = os.pipe()
    from_console, console = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        for ours in (to_commands, from_answers, from_console):
            os.close(ours)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for kept, number in ((nothing, 0), (console, 1), (console, 2)):
            os.dup2(kept, number)
        os.close(nothing)
        os.close(console)
        run(app_dir, commands, answers, host)
    for theirs in (commands, answers, console):
        os.close(theirs)
    return Spawned(pid, to_commands, from_answers, from_console)


@dataclass(eq=False, slots=True)
class Worker:
    """`start`, then `invoke`; `stop` in the end."""

    spawned: Spawned
    tell: Callable[[str], None]  # called with each line of the console and of the log
    functions: tuple[Function, ...] = ()
    http_uri: str | None = None
    """The runtime's own HTTP server; None for an app without HTTP functions."""
    _commands: asyncio.WriteTransport | None = None
    _listening: list[asyncio.Task[None]] = field(default_factory=list)
    _asked: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    _numbers: Any = field(default_factory=count)
    _end: asyncio.Task[int] | None = None

    async def start(self, app_dir: Path, settings: Mapping[str, str]) -> None:
        """Index the app. A function whose settings are missing is not loaded, and the log says so.

        Raises IndexingError or TimeoutError.
        """
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(self.spawned.commands, "wb", buffering=0)
        self._commands, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, pipe)
        answers = await opened(self.spawned.answers)
        self._listening = [
            loop.create_task(self._hear(answers), name="worker-answers"),
            loop.create_task(self._read_console(), name="worker-console"),
        ]
        self._end = loop.create_task(self._reaped(), name="worker-end")
        self.http_uri = await self._ask("init", str(app_dir), IndexingError)
        self.functions = await self._indexed(settings)
        if self.http_uri is not None:
            async with asyncio.timeout(START_LIMIT_S):
                await _accepting(self.http_uri)

    async def invoke(self, invocation: SimpleNamespace) -> None:
        """Run one function to its end. Raises InvocationError."""
        await self._ask("invoke", invocation, InvocationError)

    async def ended(self) -> int:
        """Return the exit code (the negative signal number if killed) after all output of the worker was
        read."""
        assert self._end is not None
        code = await asyncio.shield(self._end)
        await asyncio.gather(*self._listening)
        return code

    async def stop(self, grace_s: float) -> int:
        """Send SIGTERM, and SIGKILL if the worker still runs after the grace; return the exit code."""
        assert self._end is not None
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self._end.done():
                os.kill(self.spawned.pid, number)
                await asyncio.wait({self._end}, timeout=grace_s if number == signal.SIGTERM else None)
        code = await self.ended()
        if self._commands is not None:
            self._commands.close()
        return code

    async def _indexed(self, settings: Mapping[str, str]) -> tuple[Function, ...]:
        found = await self._ask("metadata", None, IndexingError)
        if not found:
            raise IndexingError("no functions found: is there a function_app.py in the app folder?")
        functions = []
        for name, function_id, raw_bindings in found:
            try:
                functions.append(read_function(name, function_id, raw_bindings, settings))
            except BindingError as error:
                self.tell(f"ERROR host The '{name}' function is in error: {error}")
                continue
            await self._ask("load", function_id, IndexingError)
        return tuple(functions)

    async def _ask(self, kind: str, content: Any, error: type[RuntimeError]) -> Any:
        assert self._commands is not None
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        if self._listening[0].done():
            future.set_result((None, "WorkerExited: the worker has gone"))
        self._commands.write(packed((number, kind, content)))
        try:
            value, refusal = await future
        finally:
            del self._asked[number]
        if refusal is not None:
            raise error(refusal)
        return value

    async def _hear(self, answers: asyncio.StreamReader) -> None:
        while (message := await receive(answers)) is not None:
            match message:
                case ("log", text):
                    self.tell(text)
                case ("answer", number, value, refusal):
                    asked = self._asked.get(number)
                    if asked is not None and not asked.done():
                        asked.set_result((value, refusal))
        for asked in self._asked.values():
            if not asked.done():
                asked.set_result((None, "WorkerExited: the worker has gone"))

    async def _read_console(self) -> None:
        """Read the worker's output line by line, and log each line."""
        console = await opened(self.spawned.console)
        line = b""
        while piece := await console.read(LINE_LIMIT_BYTES):
            *whole, line = (line + piece).split(b"\n")
            for each in whole:
                self.tell(CONSOLE + each.decode("utf-8", "replace"))
        if line:
            self.tell(CONSOLE + line.decode("utf-8", "replace"))

    async def _reaped(self) -> int:
        _, status = await asyncio.to_thread(os.waitpid, self.spawned.pid, 0)
        return os.waitstatus_to_exitcode(status)


async def _accepting(http_uri: str) -> None:
    """Return when the server accepts connections; the runtime starts it without waiting for it."""
    address = urlsplit(http_uri)
    while True:
        try:
            _, writer = await asyncio.open_connection(address.hostname, address.port)
        except ConnectionRefusedError:
            await asyncio.sleep(0)
            continue
        writer.close()
        await writer.wait_closed()
        return
