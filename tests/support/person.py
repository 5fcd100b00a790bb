"""A person at the page, in a real browser: `tests/node/page.mjs` with Debian's Chromium."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.support.programs import NODE

LEAVE_SECONDS = 20
LIMIT_SECONDS = 30
NO_CHAINS = re.compile(r"404 .*/chains$")  # appears before the first `GET /chains` is served


class Person:
    """A user of the page. `may_complain` is a part of the browser messages that a test expects."""

    def __init__(self, driver: Process, url: str) -> None:
        self._driver = driver
        self.url = url
        self.may_complain = ""

    async def does(self, verb: str, *arguments: Any) -> Any:
        """Run one command of `page.mjs` and return its result. Raises AssertionError with the error of the
        command."""
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(json.dumps([verb, *arguments]).encode() + b"\n")
        line = await self._driver.stdout.readline()
        assert line, f"the browser's driver ended at {verb}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    async def sees(self, where: str, text: str, *, part: bool = False) -> None:
        """Wait until that part of the last answer shows exactly this text, or with `part` contains it."""
        await self.does("see", where, text, part)

    async def stream_id(self) -> str:
        """Return the stream id in the address of the page."""
        return str(await self.does("address")).partition("#")[2]

    async def until_ended(self, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Wait for the end of the page's stream; return its status document, requested without the page."""
        where = f"/stream/{await self.stream_id()}"
        async with httpx.AsyncClient(base_url=self.url, headers=headers) as client:
            async with asyncio.timeout(LIMIT_SECONDS):
                while True:  # each connection lasts as long as the server allows
                    await client.get(where, headers={"accept": "text/event-stream"})
                    answer = await client.get(where, headers={"accept": "application/json"})
                    document: dict[str, Any] = answer.json()
                    if document["status"] in ("done", "failed", "cancelled"):
                        return document


@asynccontextmanager
async def browser() -> AsyncIterator[Process]:
    """Start page.mjs and its Chromium."""
    node, chromium = shutil.which("node"), shutil.which("chromium") or shutil.which("google-chrome")
    assert node, "the page's test needs Node.js"
    assert chromium, "the page's test needs chromium; `make setup` installs one"
    process = await asyncio.create_subprocess_exec(node, NODE / "page.mjs", chromium, stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def visit(driver: Process, url: str, *window: Any) -> AsyncIterator[Person]:
    """Open the page as a new user. At the end, check that the browser console has no messages."""
    person = Person(driver, url)
    await person.does("open", url, *window)
    yield person
    complaints = [text for text in await person.does("complaints") if not NO_CHAINS.search(text)]
    unexpected = [text for text in complaints if not person.may_complain or person.may_complain not in text]
    assert not unexpected, unexpected
