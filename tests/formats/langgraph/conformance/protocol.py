"""Helpers for the cases of the agent streaming protocol."""

from __future__ import annotations

import asyncio

CHANNELS = ["values", "messages", "tools", "lifecycle", "input"]


async def events(stream, secs=30.0, until=("completed", "failed", "interrupted"), ends=1):
    """Return events until the root's lifecycle has ended, and for a moment longer."""
    found = []

    async def read():
        left = ends
        async for event in stream:
            found.append(event)
            params = event["params"]
            if (
                event["method"] == "lifecycle"
                and not params["namespace"]
                and params["data"]["event"] in until
            ):
                left -= 1
                if not left:
                    break

    try:
        await asyncio.wait_for(read(), secs)
    except TimeoutError:
        raise RuntimeError(
            f"no end within {secs:.0f} s; so far {[e['method'] for e in found][-5:]}"
        ) from None
    return found


async def texts(messages):
    """Return the text of each message. A message is filled while the next messages are awaited."""

    async def text(message):
        return await message.text

    return await asyncio.gather(*[asyncio.create_task(text(m)) async for m in messages])


async def command(at, thread, method, params, id=1):
    answer = await at.client.http.client.post(
        f"/threads/{thread}/commands", json={"id": id, "method": method, "params": params}
    )
    told = answer.json()
    return {
        "status": answer.status_code,
        "type": told.get("type"),
        "error": told.get("error"),
        "id": told.get("id"),
    }
