"""Resolve host names to addresses in separate threads.

So a slow name server does not block threads of other code.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from gateway.webhooks.addresses import Address

Resolve = Callable[[str, int], Awaitable[list[Address]]]
# A look-up that was abandoned occupies its thread until the operating system ends the look-up.
MOST_THREADS = 32
_threads = threading.BoundedSemaphore(MOST_THREADS)


async def resolve(name: str, port: int) -> list[Address]:
    """Return all present addresses of a host name, each once. Raises OSError."""
    if not _threads.acquire(blocking=False):
        raise OSError("too many names are looked up")
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[list[Address]] = loop.create_future()

    def settle(found: list[Address] | OSError) -> None:
        if answered.done():
            return
        if isinstance(found, OSError):
            answered.set_exception(found)
        else:
            answered.set_result(found)

    def look() -> None:
        try:
            found: list[Address] | OSError = _look(name, port)
        except (OSError, UnicodeError) as error:
            found = OSError(type(error).__name__)
        finally:
            _threads.release()
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=look, name="webhook-name", daemon=True).start()
    return await answered


def _look(name: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    # An address with `%` and the name of a network belongs to that local network only.
    return list(dict.fromkeys(ip_address(str(one[4][0])) for one in found))
