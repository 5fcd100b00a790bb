"""A worker process that runs one delivery and ends. So each message can be run by another instance.

Start it with `python -m tests.support.once`. The code that reads, runs and settles the delivery is the
product's.
"""

from __future__ import annotations

import asyncio

from gateway.settings import Settings
from gateway.streams.service import Gateway
from workers.chains.registry import Registry
from workers.delivery.runner import Runner


async def main() -> None:
    settings = Settings.from_env()
    registry = Registry(settings)
    gateway = Gateway(settings, registry.catalogue())
    queue = gateway.parts.queue
    while not (deliveries := await queue.receive(1)):
        pass
    [delivery] = deliveries
    settled = await Runner(settings, gateway.parts.log, registry).run(delivery.body)
    if settled.again_in_ms is None:
        await queue.done(delivery)
    else:
        await queue.later(delivery, settled.again_in_ms)
    await gateway.close()


if __name__ == "__main__":
    asyncio.run(main())
