"""One connection to Redis, not yet open: where it goes, over TLS or not, and who says so.

TLS is 1.2 at least, and the certificate is checked, for the name that the operator gave. Private authorities
are named in the URL (`?ssl_ca_certs=/path.pem`), as redis-py has it. A token is asked for at each connect.
Invariant: no time-outs and no retries of redis-py's own; those are decided by who holds the connection.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from redis import exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection, ConnectionPool, SSLConnection
from redis.credentials import CredentialProvider

TIMEOUT_SECONDS = 5.0
_CAUSES = 10  # links of a chain of exceptions that are looked at


@dataclass(frozen=True, slots=True)
class Token:
    """What AUTH takes: a principal's object id and its token. `expires_at`: seconds of the Unix clock."""

    user: str
    secret: str = field(repr=False)
    expires_at: float


class Credentials(Protocol):
    """Whoever has tokens, and newer ones in time."""

    async def current(self) -> Token:
        """A token that is valid now. Raises OSError when there is none."""

    async def after(self, token: Token) -> Token:
        """The one that follows this one; waits for it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A server's URL, the tokens that it takes (None: as the URL says), the name on its certificate."""

    url: str = field(repr=False)
    credentials: Credentials | None = None
    tls_name: str = ""  # empty: the URL's host

    def at(self, host: str, port: int, tls_name: str) -> Place:
        """Another server that is spoken to in the same way."""
        parts = urlsplit(self.url)
        before, _, _ = parts.netloc.rpartition("@")
        there = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        url = parts._replace(netloc=f"{before}@{there}" if before else there).geturl()
        return replace(self, url=url, tls_name=tls_name)


Where = str | Place | Callable[[], Place]


def place_of(where: Where) -> Place:
    """A URL alone is a place; one that may change is asked for."""
    if isinstance(where, str):
        return Place(where)
    return where if isinstance(where, Place) else where()


def connection_to(where: Where, *, name: str) -> AbstractConnection:
    """A connection that is not yet open; `name` is what the server knows it by."""
    place = place_of(where)
    options: dict[str, Any] = {}
    if place.credentials is not None:
        options["credential_provider"] = _Provider(place.credentials)
    if place.url.startswith("rediss://"):
        options["ssl_min_version"] = ssl.TLSVersion.TLSv1_2
    pool = ConnectionPool.from_url(
        place.url,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=TIMEOUT_SECONDS,
        client_name=name,
        retry=None,
        retry_on_error=[],
        health_check_interval=0,
        **options,
    )
    if place.tls_name and pool.connection_class is SSLConnection:
        return _Named(place.tls_name, **pool.connection_kwargs)
    connection: AbstractConnection = pool.make_connection()
    return connection


def cut(link: AbstractConnection) -> None:
    """End a connection at once. An orderly close waits for ever for unsent bytes that nobody takes."""
    if link._writer is not None:
        link._writer.transport.abort()


def token_of(link: AbstractConnection) -> Token | None:
    """The token with which this connection was opened."""
    provider = link.credential_provider
    return provider.given if isinstance(provider, _Provider) else None


def reason_of(error: BaseException) -> str:
    """Why there is no connection, for the log: no secret is in it, nor is a foreign error's text."""
    cause: BaseException | None = error
    for _ in range(_CAUSES):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"no TLS: {cause.reason}"
        cause = cause and (cause.__cause__ or cause.__context__)
    if isinstance(error, redis_errors.AuthenticationError):
        return "it refuses our credentials"
    return type(error).__name__


class _Provider(CredentialProvider):
    """redis-py's view of `Credentials`; remembers what it gave."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self.given: Token | None = None

    async def get_credentials_async(self) -> tuple[str, str]:
        """User and password of AUTH."""
        self.given = await self._credentials.current()
        return self.given.user, self.given.secret


class _Named(SSLConnection):
    """A node of a cluster is known by its address, and its certificate by a name."""

    def __init__(self, server_hostname: str, **options: Any) -> None:
        super().__init__(**options)
        self._server_hostname = server_hostname

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "server_hostname": self._server_hostname}
