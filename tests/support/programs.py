"""Programs that we did not write, or not in Python, run to their end."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.support.processes import REPOSITORY

NODE = REPOSITORY / "tests" / "node"
LIMIT_SECONDS = 110  # of a busy machine
LONGEST_LINE = 1024 * 1024


async def run(*command: str) -> bytes:
    """A program's output; it must end well, and within the limit. Raises AssertionError or TimeoutError."""
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
    """A script of tests/node that is still running: what it has said so far, a JSON object a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[dict[str, Any]] = []

    async def until(self, right: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
        """Until all it has said is right. Raises AssertionError when it ends before, and TimeoutError."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        async with asyncio.timeout(LIMIT_SECONDS):
            while not right(self.lines):
                raw = await self._process.stdout.readline()
                assert raw, f"{self.lines[-3:]} {(await self._process.stderr.read()).decode()}"
                self.lines.append(json.loads(raw))
        return self.lines

    async def tell(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    async def end(self) -> list[dict[str, Any]]:
        """All that it has said, when it has ended well. Raises AssertionError or TimeoutError."""
        async with asyncio.timeout(LIMIT_SECONDS):
            out, err = await self._process.communicate()
        assert self._process.returncode == 0, err.decode()
        self.lines += [json.loads(raw) for raw in out.splitlines()]
        return self.lines


@asynccontextmanager
async def talking(script: str, *arguments: str) -> AsyncIterator[Talk]:
    """A script of tests/node, killed at the block's end if it is not at its own."""
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
    """What a script of tests/node says, a JSON object a line."""
    return [json.loads(line) for line in (await run("node", script, *arguments)).splitlines()]
