"""The first steps of a new user.

Configure nothing, ask by curl, kill the server ten times, and get every token once.
"""

from __future__ import annotations

import asyncio
import random
import re

import pytest

from gateway.protocol.sse import split_frames
from tests.support.processes import GatewayProcess

PLUGS = 10
CURL = ("curl", "-sN", "--max-time", "100", "-H", "Accept: text/event-stream")


def whole_frames(received: bytes) -> bytes:
    """Return the complete frames that arrived before the connection was cut."""
    cut = received.rfind(b"\n\n") + 2
    return re.sub(rb"^(retry: \d+\n|:\n)+", b"", received[: cut if cut > 1 else 0])


async def curl(*arguments: str, stop_after: int | None = None) -> bytes:
    """Return curl's output until the end, or until curl is killed after that many bytes."""
    process = await asyncio.create_subprocess_exec(*CURL, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    received = b""
    while stop_after is None or len(received) < stop_after:
        piece = await process.stdout.read(64)
        if not piece:
            break
        received += piece
    if process.returncode is None:
        try:
            process.kill()
        except ProcessLookupError:
            assert stop_after is None
    await process.communicate()
    return received


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ten_pulled_plugs_lose_and_double_nothing() -> None:
    async with GatewayProcess("all", {}, anew=True) as gateway:
        await gateway.line("Model: ")
        first = await curl(
            *("-H", "Content-Type: application/json", "-d", '{"user": "Tell me a short story."}'),
            gateway.url + "/stream",
            stop_after=random.randint(400, 1500),
        )
        kept = whole_frames(first)
        found = re.search(rb'"id":"([^"]+)"', kept)
        assert found is not None
        url = f"{gateway.url}/stream/{found[1].decode()}"
        for _ in range(PLUGS - 1):
            last = split_frames(kept)[-1].split(b"\n")[0].removeprefix(b"id: ").decode()
            more = await curl("-H", f"Last-Event-ID: {last}", url, stop_after=random.randint(1, 1500))
            kept += whole_frames(more)
        last = split_frames(kept)[-1].split(b"\n")[0].removeprefix(b"id: ").decode()
        kept += whole_frames(await curl("-H", f"Last-Event-ID: {last}", url))
        log = whole_frames(await curl(url))
    assert kept == log
    looked = [re.search(rb"^event: (\w+)$", frame, re.MULTILINE) for frame in split_frames(log)]
    kinds = [kind[1] for kind in looked if kind]
    assert (kinds[0], kinds[-1]) == (b"start", b"done")
    assert set(kinds) == {b"start", b"stage", b"tool", b"custom", b"done"}, "the scripted chain's"
    assert len(split_frames(log)) > 100, "its words come one by one"
