"""Open a connection to Redis: to the right server, with or without TLS, and with our credentials.

redis-py parses the URL, and makes the TLS context from the URL's options. Our own code connects and does the
handshake: AUTH, CLIENT SETNAME and SELECT, written together. TLS is 1.2 at least, and the certificate is
checked for the host name that the operator gave. Private authorities are named in the URL
(`?ssl_ca_certs=/path.pem`). A token is requested at each connect.

Invariant: this module has no time-out and no retry. The owner of the connection decides on both.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from socket import IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from redis import exceptions as redis_errors
from redis.asyncio.connection import Connection as TcpConnection
from redis.asyncio.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection

from gateway.redis.replies import Answer
from gateway.redis.resp import Wire, packed

TIMEOUT_SECONDS = 5.0
# At most this many exceptions of a chain of causes are examined.
_CAUSES = 10


@dataclass(frozen=True, slots=True)
class Token:
    """The arguments of AUTH: the object id of a principal and its token.

    `expires_at`: seconds of the Unix clock.
    """

    user: str
    secret: str = field(repr=False)
    expires_at: float


class Credentials(Protocol):
    """A source of tokens that also provides newer tokens in time."""

    async def current(self) -> Token:
        """Return a token that is valid now. Raises OSError when there is none."""

    async def after(self, token: Token) -> Token:
        """Wait for the token that follows this one, and return it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A server: its URL, its credentials, and the host name in its certificate.

    If `credentials` is None, the URL has the password.
    """

    url: str = field(repr=False)
    credentials: Credentials | None = None
    tls_name: str = ""  # empty: the host in the URL

    def at(self, host: str, port: int, tls_name: str) -> Place:
        """Return another server with the same credentials and options."""
        parts = urlsplit(self.url)
        before, _, _ = parts.netloc.rpartition("@")
        there = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        url = parts._replace(netloc=f"{before}@{there}" if before else there).geturl()
        return replace(self, url=url, tls_name=tls_name)


Where = str | Place | Callable[[], Place]


def place_of(where: Where) -> Place:
    """Return a place for any form of `where`.

    A text is a URL without token credentials. A function is called at each connect.
    """
    if isinstance(where, str):
        return Place(where)
    return where if isinstance(where, Place) else where()


class Endpoint:
    """A server that can be connected to.

    `name` is the connection's name in the server (CLIENT SETNAME).
    """

    def __init__(self, where: Where, *, name: str) -> None:
        place = place_of(where)
        options: dict[str, Any] = {}
        if place.url.startswith("rediss://"):
            options["ssl_min_version"] = ssl.TLSVersion.TLSv1_2
        # redis-py makes an object from the URL and its options. The object is never connected: only its
        # values are read.
        self._asked = ConnectionPool.from_url(place.url, **options).make_connection()
        self._credentials = place.credentials
        self._tls_name = place.tls_name
        self._name = name

    @property
    def address(self) -> str:
        """The server's address for the log: host and port, or the path of a socket."""
        asked = self._asked
        return asked.path if isinstance(asked, UnixDomainSocketConnection) else f"{asked.host}:{asked.port}"

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The TLS context that checks the server's certificate. None if there is no TLS."""
        return self._asked.ssl_context.get() if isinstance(self._asked, SSLConnection) else None

    async def open(self) -> tuple[Wire, Token | None]:
        """Connect and do the handshake. Return the connection, and the token that opened it.

        Raises OSError, or redis-py's error if the server refuses a command.
        """
        greeting = _Greeting()
        wire = Wire(greeting.answered, greeting.lost)
        try:
            await self._connect(wire)
            token = await self._credentials.current() if self._credentials is not None else None
            commands = self._greeting(token)
            await greeting.send(wire, commands)
        except BaseException as error:
            wire.end(error)
            if isinstance(error, Exception) and not isinstance(error, (OSError, redis_errors.RedisError)):
                # For example, an invalid host name.
                raise redis_errors.ConnectionError(type(error).__name__) from error
            raise
        return wire, token

    async def _connect(self, wire: Wire) -> None:
        loop, asked = asyncio.get_running_loop(), self._asked
        if isinstance(asked, UnixDomainSocketConnection):
            await loop.create_unix_connection(lambda: wire, asked.path)
            return
        assert isinstance(asked, TcpConnection)
        context = self.tls
        name = (self._tls_name or asked.host) if context is not None else None
        transport, _ = await loop.create_connection(
            lambda: wire, asked.host, asked.port, ssl=context, server_hostname=name
        )
        if asked.socket_keepalive:
            socket = transport.get_extra_info("socket")
            socket.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
            options = cast(Mapping[int, int | bytes], asked.socket_keepalive_options)
            for option, value in options.items():
                socket.setsockopt(IPPROTO_TCP, option, value)

    def _greeting(self, token: Token | None) -> list[tuple[Any, ...]]:
        """Return the commands of the handshake."""
        asked, commands = self._asked, list[tuple[Any, ...]]()
        if token is not None:
            commands.append(("AUTH", token.user, token.secret))
        elif asked.username:
            commands.append(("AUTH", asked.username, asked.password or ""))
        elif asked.password:
            commands.append(("AUTH", asked.password))
        commands.append(("CLIENT", "SETNAME", self._name))
        if asked.db:
            commands.append(("SELECT", asked.db))
        return commands


class _Greeting:
    """The answers to the commands of a handshake."""

    def __init__(self) -> None:
        self._answers: list[Answer] = []
        self._count = 0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def send(self, wire: Wire, commands: list[tuple[Any, ...]]) -> None:
        """Write the commands together and wait for all answers. Raises the first answer that is an error."""
        self._count = len(commands)
        wire.send(*map(packed, commands), at_once=True)
        await self._done
        for answer in self._answers:
            if isinstance(answer, Exception):
                raise answer

    def answered(self, answer: Answer) -> None:
        """Store the next answer."""
        self._answers.append(answer)
        if len(self._answers) == self._count and not self._done.done():
            self._done.set_result(None)

    def lost(self, reason: BaseException) -> None:
        """Fail the handshake: the connection has ended before all answers came."""
        if not self._done.done():
            self._done.set_exception(reason)
            self._done.exception()  # marks the exception as retrieved, even if nobody awaits it


# The system's words for each error number. The text of an exception is not used, because it may name a path.
_ERRNO = {number: os.strerror(number) for number in errno.errorcode}


def reason_of(error: BaseException) -> str:
    """Return why there is no connection, for the log.

    The reason has no secret, and no text of a foreign error.
    """
    cause: BaseException | None = error
    for _ in range(_CAUSES):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"no TLS: {cause.reason}"
        cause = cause and (cause.__cause__ or cause.__context__)
    if isinstance(error, redis_errors.AuthenticationError):
        return "it refuses our credentials"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_SECONDS:g} s"
    if isinstance(error, OSError) and error.errno and (said := _ERRNO.get(error.errno)):
        return said
    return type(error).__name__
