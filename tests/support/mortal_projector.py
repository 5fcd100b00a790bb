"""Processes that project the journal of a stream. Each process kills itself at one of its commands to Redis.

For each line of stdin, `URL STREAM before|after NUMBER`, one process is forked. Each line of stdout is the
exit code of a process. The code is 0 if the process has fewer commands than NUMBER.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from gateway.redis.cluster import Router
from gateway.redis.connect import Place
from gateway.settings import Settings
from gateway.store.projector import Projector


class Mortal(Router):
    """Kill the process before a command is sent, or after the command was answered."""

    def __init__(self, url: str, when: str, number: int) -> None:
        super().__init__(Place(url), name="mortal")
        self._when = when
        self._left = number

    async def answers(self, commands: list[Any]) -> list[Any]:
        self._left -= 1
        if self._left == 0 and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answers = await super().answers(commands)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answers


async def project(url: str, stream_id: str, when: str, number: str) -> None:
    redis = Mortal(url, when, int(number))
    try:
        await Projector(redis, Settings(redis_url=url)).settle(stream_id)
    finally:
        await redis.close()


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(project(*line.split()))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
