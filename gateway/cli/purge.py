"""`python -m gateway purge --owner NAME`: delete all streams and threads of one owner."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from gateway.formats.langgraph.threads import Thread
from gateway.protocol.errors import HoldfastError, StreamNotFound
from gateway.store.threads import quoted
from gateway.store.usage import Usage
from gateway.streams import purging
from gateway.streams.service import Gateway

_AT_ONCE = 100


async def purge(gateway: Gateway, owner: str, *, asks: bool) -> int:
    """Delete all data of the owner. Return the exit code: 1 when it was not confirmed, or was not completed.

    `asks`: ask on the terminal for a confirmation.
    """
    question = f"Delete all streams and threads of {owner!r}? Type yes: "
    try:
        if asks and await asyncio.to_thread(input, question) != "yes":
            print("nothing was deleted", file=sys.stderr)
            return 1
        threads = await _threads(gateway, owner)
        streams = await _streams(gateway, owner)
    except HoldfastError as error:
        print(f"{error.detail}; what was deleted is deleted: run it again for the rest", file=sys.stderr)
        return 1
    finally:
        await gateway.close()
    print(f"deleted: {threads} threads, and {streams} streams beside them")
    return 0


async def _threads(gateway: Gateway, owner: str) -> int:
    names: list[str] = []
    before: tuple[int, str] | None = None
    while page := await gateway.parts.threads.listed(owner, before, _AT_ONCE):
        names += [name for _, name in page]
        before = page[-1][0], quoted(page[-1][1])
    for name in names:
        await Thread(gateway, owner, name).end()
    return len(names)


async def _streams(gateway: Gateway, owner: str) -> int:
    count = 0
    while page := await gateway.parts.mine.page(owner, None, _AT_ONCE):
        for _, stream_id in page:
            with suppress(StreamNotFound):  # it has expired, or was never created
                await purging.purge(gateway, stream_id, owner)
                count += 1
            await gateway.parts.mine.forget(owner, [stream_id])
    for stream_id in await gateway.parts.outbox.of_owner(owner):  # streams that are no longer in the list
        with suppress(StreamNotFound):
            await purging.purge(gateway, stream_id, owner)
    await gateway.parts.outbox.forget(owner)
    if gateway.parts.log.projector is not None:
        await gateway.parts.log.projector.close()  # so that it writes nothing about the owner after this
    await Usage(gateway.parts.redis).forget(owner)
    return count
