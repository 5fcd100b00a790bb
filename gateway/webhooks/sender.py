"""Send one webhook: one POST to exactly the address that was checked. One time limit bounds all of it.

The name is resolved once, and each of its addresses is checked. Then a connection to one of these addresses
is made. TLS still verifies the host name. Only the status of the answer is read. Redirects are not followed,
and no proxy is used.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping

from gateway.webhooks.addresses import Address
from gateway.webhooks.resolving import Resolve, resolve
from gateway.webhooks.urls import Place, Rules

TIMEOUT_SECONDS = 5.0  # from resolving the name until the answer's headers
CONNECT_SECONDS = 2.0  # seconds for each address but the last
MOST_ADDRESSES = 4  # most addresses that are tried
LONGEST_HEAD = 16_384  # most bytes of the answer's headers
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


class Poster:
    """Sends webhooks to places that the rules allow.

    A test may pass its own `resolving` and `tls`; otherwise those of the system are used.
    """

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
        """Try to send once.

        Return the status of the answer, for example `200`, or a word if there is no status.

        The gateway defines these words: `refused` (the URL or an address is not allowed), `no_address`,
        `no_connection`, `tls`, `timeout`, `no_answer`.
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
            return "refused"  # one private address of a name blocks all its addresses
        connection = await self._connect(place, found[:MOST_ADDRESSES])
        if connection is None:
            return "no_connection"
        reader, writer = connection
        try:
            writer.write(_request(place, headers, body))
            await writer.drain()
            return await _status(reader)
        finally:
            writer.transport.abort()  # the rest of the answer is not read

    async def _connect(
        self, place: Place, addresses: list[Address]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        if place.secure and self._tls is None:
            # this reads the files of all certificate authorities
            self._tls = await asyncio.to_thread(ssl.create_default_context)
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
            except OSError:  # the next address may work
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
    """Return the final status of the answer. Statuses 1xx come before it and are skipped."""
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
