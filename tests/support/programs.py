"""Programs that we did not write, or not in Python, run to their end."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Any

from tests.support.processes import REPOSITORY

NODE = REPOSITORY / "tests" / "node"
LIMIT_SECONDS = 60


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


async def node(script: str, *arguments: str) -> list[dict[str, Any]]:
    """What a script of tests/node says, a JSON object a line."""
    return [json.loads(line) for line in (await run("node", script, *arguments)).splitlines()]
