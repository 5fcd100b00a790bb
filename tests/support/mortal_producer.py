"""A producer that dies by `kill -9`. Its argument gives the words to write and the number of words before it
dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from gateway.producer.producer import Producer


async def live(given: dict[str, Any]) -> None:
    left = given["die_after"]
    async with Producer.from_env() as made:
        stream = await made.open(chain="told", stages=tuple(given["stages"]), key=given["key"])
        for stage, words in given["stages"].items():
            async with stream.write(stage) as out:
                for word in words:
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    await out.text(word)
                    left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(live(json.loads(sys.argv[1])))
