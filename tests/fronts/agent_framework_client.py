"""Microsoft's Python client of AG-UI does one thing: URL TEXT [twice]. One JSON line, as of `clients.mjs`."""

from __future__ import annotations

import asyncio
import json
import sys

from agent_framework import Agent
from agent_framework_ag_ui import AGUIChatClient


async def main(url: str, text: str, verb: str = "ask") -> None:
    shown, error, count = "", None, 0
    async with AGUIChatClient(endpoint=url) as client:
        agent = Agent(name="assistant", client=client)
        session = agent.create_session()
        try:
            for _ in range(2 if verb == "twice" else 1):
                shown = ""
                async for update in agent.run(text, session=session, stream=True):
                    shown += update.text or ""
                    count += 1
                    for content in update.contents:
                        error = error or getattr(content, "message", None)
        except Exception as failed:
            error = f"{type(failed).__name__}: {failed}"
    print(json.dumps({"shown": shown, "error": error, "count": count, "asked": []}))


asyncio.run(main(*sys.argv[1:]))
