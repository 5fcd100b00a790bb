"""Run other programs to their end: programs of other authors, or not in Python."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.support.processes import REPOSITORY

NODE = REPOSITORY / "tests" / "node"
LIMIT_SECONDS = 110  # enough for a busy machine
LONGEST_LINE = 1024 * 1024


async def run(*command: str) -> bytes:
    """Run a program and return its output. It must exit with 0 within the time limit. Raises AssertionError
    or TimeoutError."""
    program = shutil.which(command[0])
    assert program, f"the tests need {command[0]}"
    process = await asyncio.create_subprocess_exec(
        program, *command[1:], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=NODE
    )
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            out, err = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, (out + err).decode()
    return out


class Talk:
    """A script of tests/node that is still running, and its output so far: one JSON object in each line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[dict[str, Any]] = []

    async def until(self, right: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
        """Wait until `right` accepts the whole output. Raises AssertionError if the script ends before, and
        TimeoutError."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        async with asyncio.timeout(LIMIT_SECONDS):
            while not right(self.lines):
                raw = await self._process.stdout.readline()
                assert raw, f"{self.lines[-3:]} {(await self._process.stderr.read()).decode()}"
                self.lines.append(json.loads(raw))
        return self.lines

    async def tell(self, line: str) -> None:
        """Write a line to the script's stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    async def end(self) -> list[dict[str, Any]]:
        """Return the whole output after the script has exited with 0. Raises AssertionError or
        TimeoutError."""
        async with asyncio.timeout(LIMIT_SECONDS):
            out, err = await self._process.communicate()
        assert self._process.returncode == 0, err.decode()
        self.lines += [json.loads(raw) for raw in out.splitlines()]
        return self.lines


@dataclass(frozen=True, slots=True)
class Driven:
    """A client that a script of tests/node drives. The script's lines name it in the field KIND."""

    KIND: ClassVar[str]
    talk: Talk = field(repr=False)
    name: str

    async def tell(self, verb: str, **given: Any) -> None:
        """Send a command to the script."""
        await self.talk.tell(json.dumps({self.KIND: self.name, "does": verb, **given}))

    def did(self, verb: str) -> list[dict[str, Any]]:
        """Return the reported states of the client, one for each finished command of this kind."""
        return [line for line in self.talk.lines if line[self.KIND] == self.name and line.get("did") == verb]

    async def does(self, verb: str, **given: Any) -> dict[str, Any]:
        """Send a command to the script, wait until it is done, and return the state of the client."""
        times = len(self.did(verb)) + 1
        await self.tell(verb, **given)
        return await self.ends(verb, times)

    async def ends(self, verb: str, times: int = 1) -> dict[str, Any]:
        """Wait until `times` commands of this kind are done; return the client's state after the last one."""
        await self.talk.until(lambda _: len(self.did(verb)) >= times)
        return self.did(verb)[-1]

    async def shows(self, text: str, times: int = 1) -> None:
        """Wait until the shown text has changed to this text `times` times."""
        line = {self.KIND: self.name, "text": text}
        await self.talk.until(lambda lines: lines.count(line) >= times)


@asynccontextmanager
async def talking(script: str, *arguments: str) -> AsyncIterator[Talk]:
    """Start a script of tests/node. At the end of the block it is killed if it still runs."""
    program = shutil.which("node")
    assert program, "the tests need node"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program, script, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, cwd=NODE, limit=LONGEST_LINE
    )
    try:
        yield Talk(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def node(script: str, *arguments: str) -> list[dict[str, Any]]:
    """Run a script of tests/node to its end and return its output: one JSON object for each line."""
    return [json.loads(line) for line in (await run("node", script, *arguments)).splitlines()]
