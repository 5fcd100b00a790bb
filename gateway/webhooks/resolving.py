"""Names to addresses, in threads of our own: a name server that is slow keeps no thread that others need."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from gateway.webhooks.addresses import Address

Resolve = Callable[[str, int], Awaitable[list[Address]]]
MOST_THREADS = 32  # a look-up that nobody waits for any more keeps its thread until the system gives it up
_threads = threading.BoundedSemaphore(MOST_THREADS)


async def resolve(name: str, port: int) -> list[Address]:
    """All addresses that a name has now, each once. Raises OSError."""
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
    # An address may come with its network's name behind a `%`: such a one is of this link alone.
    return list(dict.fromkeys(ip_address(str(one[4][0])) for one in found))
