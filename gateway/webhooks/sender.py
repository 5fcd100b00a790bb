"""Sends one webhook: a POST to exactly the address that was checked, within a time that bounds all of it.

The name is resolved once, each of its addresses is judged, and one of these is connected to. TLS still asks
for the name. Of the answer the status is read and nothing else. No redirect is followed, no proxy is asked.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping

from gateway.webhooks.addresses import Address
from gateway.webhooks.resolving import Resolve, resolve
from gateway.webhooks.urls import Place, Rules

TIMEOUT_SECONDS = 5.0  # from the name to the answer's head
CONNECT_SECONDS = 2.0  # to one of several addresses
MOST_ADDRESSES = 4  # that are tried
LONGEST_HEAD = 16_384  # bytes of the answer's head
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


class Poster:
    """Sends to where the rules allow. `resolving` and `tls` are a test's, or the system's."""

    def __init__(
        self,
        rules: Rules,
        *,
        resolving: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._rules = rules
        self._resolve = resolving
        self._tls = tls
        self._timeout = timeout

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> str:
        """What came of one try: the answer's status, `200` for example, or a word for why there is none.

        The word is ours: `refused` (the URL or an address is not allowed), `no_address`, `no_connection`,
        `tls`, `timeout`, `no_answer`.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._send(url, headers, body)
        except TimeoutError:
            return "timeout"
        except ssl.SSLError:
            return "tls"
        except (OSError, EOFError):
            return "no_answer"

    async def _send(self, url: str, headers: Mapping[str, str], body: bytes) -> str:
        try:
            place = self._rules.place(url)
        except ValueError:
            return "refused"
        try:
            found = [place.address] if place.address else await self._resolve(place.host, place.port)
        except OSError:
            return "no_address"
        if not found:
            return "no_address"
        if not all(self._rules.allows(place, address) for address in found):
            return "refused"  # of a name with one private address, none is asked
        connection = await self._connect(place, found[:MOST_ADDRESSES])
        if connection is None:
            return "no_connection"
        reader, writer = connection
        try:
            writer.write(_request(place, headers, body))
            await writer.drain()
            return await _status(reader)
        finally:
            writer.transport.abort()  # what else the answer has is not read

    async def _connect(
        self, place: Place, addresses: list[Address]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        if place.secure and self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)  # it reads all authorities' files
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_SECONDS if address != addresses[-1] else None):
                    return await asyncio.open_connection(
                        str(address),
                        place.port,
                        ssl=self._tls if place.secure else None,
                        server_hostname=place.host if place.secure else None,
                        limit=LONGEST_HEAD,
                    )
            except ssl.SSLError:
                raise
            except OSError:  # the next address may be reached
                continue
        return None


def _request(place: Place, headers: Mapping[str, str], body: bytes) -> bytes:
    fields = {
        "host": place.authority,
        "user-agent": "Holdfast-Webhooks",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **headers,
    }
    lines = [f"POST {place.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


async def _status(reader: asyncio.StreamReader) -> str:
    """The status of the answer, behind those that are only on the way to it (1xx)."""
    raw = b""
    while True:
        while not (end := _HEAD_END.search(raw)):
            piece = await reader.read(4096)
            raw += piece
            if not piece or len(raw) > LONGEST_HEAD:
                break
        found = _STATUS.match(raw)
        if found is None or (end is None and found[1].startswith(b"1")):
            return "no_answer"
        if not found[1].startswith(b"1"):
            return found[1].decode()
        assert end is not None
        raw = raw[end.end() :]
