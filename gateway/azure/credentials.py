"""The identity of this process on Azure: tokens for Storage, the models and Redis, by DefaultAzureCredential.

Credentials are imported and created only when a part of the program asks for one. With keys, no part asks.
There is one credential per process and client id, and it is closed with the gateway.

Redis's tokens come from redis-entraid's identity provider. It is synchronous, so it runs in a thread. This
module renews the tokens itself, because redis-py 8.1's token manager has three faults. It asks within the
event loop. It does not apply its own time-out (and no token endpoint answers within the default, 100 ms). It
never renews again after a failure. Invariant: at most one request for a Redis token runs at a time, and its
thread ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from gateway.redis.connect import Token
from gateway.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.identity.aio import DefaultAzureCredential

REDIS_SCOPE = "https://redis.azure.com/.default"
OPENAI_SCOPE = "https://cognitiveservices.azure.com/.default"
REQUEST_SECONDS = 10.0
CONNECT_SECONDS, READ_SECONDS = 3.0, 7.0  # time limits of one HTTP request
# The part of a token's life after which it is renewed. It is a random number in this range, so that the
# processes of one deployment do not all ask at the same time.
RENEW_AT = (0.6, 0.75)
# An identity's endpoint returns the same token until near its end. So the pauses between requests become
# shorter, down to this one.
SHORTEST_PAUSE_SECONDS = 1.0
_BACKOFF_SECONDS = (0.5, 10.0)
_NAP_SECONDS = 60.0  # the Unix clock may jump, or the machine may sleep: check it this often
_log = logging.getLogger("holdfast.identity")
_credentials: dict[str, DefaultAzureCredential] = {}


def credential(client_id: str = "") -> AsyncTokenCredential:
    """Return the process's credential. With a client id, return that of this user-assigned identity."""
    if client_id not in _credentials:
        from azure.identity.aio import DefaultAzureCredential

        _credentials[client_id] = DefaultAzureCredential(**_options(client_id))
    return _credentials[client_id]


def blocking_credential(client_id: str) -> TokenCredential:
    """Return a credential for a client that works in its own threads."""
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(**_options(client_id))


def openai_token_provider(settings: Settings) -> Callable[[], Awaitable[str]]:
    """Return a function for `azure_ad_async_token_provider`.

    The credential caches a token until near its end. The function raises TimeoutError after 10 s, or an
    exception of azure-identity.
    """

    async def token() -> str:
        async with asyncio.timeout(REQUEST_SECONDS):
            return (await credential(settings.azure_client_id).get_token(OPENAI_SCOPE)).token

    return token


async def close() -> None:
    """Close all credentials. Later calls create new ones."""
    held = list(_credentials.values())
    _credentials.clear()
    for one in held:
        await one.close()


def _options(client_id: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "connection_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retry_total": 1,  # the client's default would retry for minutes
        "retry_backoff_factor": 0.1,
    }
    return options | ({"managed_identity_client_id": client_id} if client_id else {})


def redis_tokens(settings: Settings) -> RedisTokens | None:
    """Return the tokens for connections to Redis, or None when the URL has the credentials."""
    if settings.redis_auth != "entra":
        return None
    return RedisTokens(settings.azure_client_id)


class RedisTokens:
    """Tokens for Redis (`Credentials` of gateway/redis/connect.py).

    The first token is requested at the first connect. Tokens are renewed until `close` is called.
    """

    def __init__(self, client_id: str = "") -> None:
        self._client_id = client_id
        self._credential: Any = None
        self._asking: asyncio.Future[Token] | None = None
        self._token: Token | None = None
        self._failed = False  # True: the last request failed, and the next one has not begun
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def current(self) -> Token:
        """Return a token that is valid now. Raises ConnectionError when no token can be obtained."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name="redis-tokens")
        while self._token is None or self._token.expires_at <= time.time():
            if self._failed:
                raise ConnectionError("there is no token for the store")
            await self._news.wait()
        return self._token

    async def after(self, token: Token) -> Token:
        """Wait for the token that follows `token`, and return it."""
        while self._token is None or self._token.secret == token.secret:
            await self._news.wait()
        return self._token

    async def close(self) -> None:
        """Stop renewing tokens and close the credential."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._asking is not None:
            await asyncio.gather(self._asking, return_exceptions=True)
        if self._credential is not None:
            await asyncio.to_thread(self._credential.close)

    async def _keep(self) -> None:
        backoff = _BACKOFF_SECONDS[0]
        while True:
            try:
                self._token = await self._request()
            except Exception as error:
                _log.warning("no token for the store: %s; next try in %.1f s", _name(error), backoff)
                self._tell(failed=True)
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(backoff * 2, _BACKOFF_SECONDS[1])
                self._failed = False  # callers that come now wait for the next request
                continue
            backoff = _BACKOFF_SECONDS[0]
            self._tell(failed=False)
            left = self._token.expires_at - time.time()
            await _until(time.time() + max(SHORTEST_PAUSE_SECONDS, left * random.uniform(*RENEW_AT)))

    async def _request(self) -> Token:
        """Request a token, or wait for an earlier request that took too long.

        Raises TimeoutError or RequestTokenErr.
        """
        if self._asking is None:
            self._asking = asyncio.get_running_loop().run_in_executor(None, self._ask)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await asyncio.shield(self._asking)
        finally:
            if self._asking.done():
                self._asking = None

    def _ask(self) -> Token:
        """Request a token. Runs in a thread, because even the import of azure-identity is slow."""
        from redis_entraid.identity_provider import DefaultAzureCredentialProvider

        if self._credential is None:
            from azure.identity import DefaultAzureCredential

            self._credential = DefaultAzureCredential(**_options(self._client_id))
        answer = DefaultAzureCredentialProvider(self._credential, (REDIS_SCOPE,)).request_token()
        return Token(answer.try_get("oid"), answer.get_value(), answer.get_expires_at_ms() / 1000)

    def _tell(self, *, failed: bool) -> None:
        self._failed = failed
        news, self._news = self._news, asyncio.Event()
        news.set()


async def _until(when: float) -> None:
    while (left := when - time.time()) > 0:  # noqa: ASYNC110 - nothing announces a time
        await asyncio.sleep(min(left, _NAP_SECONDS))


def _name(error: BaseException) -> str:
    """Return an error's type and its cause's type.

    Its text is left out: it may quote the endpoint's answer.
    """
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else None
    return type(error).__name__ + (f" ({type(cause).__name__})" if cause else "")
